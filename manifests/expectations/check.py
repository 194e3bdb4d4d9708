"""``manifest expect``: a file of rules that a table must keep, checked in one pass; what fails names its rows.

    rules:
      - snr_db p05 >= 10
      - share of language=zh between 0.3 and 0.5
      - {rule: null share of asr.text <= 0.02, where: source = studio, severity: warning}
      - {name: scores, every: dnsmos_ovrl between 1 and 5}

A text alone stands for ``rule``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from manifests.conditions import parse_condition
from manifests.console import counted, number
from manifests.errors import RequestError
from manifests.expectations.rules import Rule, parse_rule
from manifests.fold import fold
from manifests.recipes import RecipeModel, decode_recipe
from manifests.rows import Rows

NAMED_ROWS = 5
KEYS = ("clip.clip_id", "key", "recording_id", "input_id", "clip_id", "speaker_id")  # what names a row, the first that there is
MARKS = {"holds": "ok", "fails": "FAILED", "undecided": "UNDECIDED"}


class RuleConfig(RecipeModel):
    """One rule: ``rule`` in the language of ``manifests.expectations.rules``, or ``every`` with the condition that rows must meet."""

    rule: str | None = Field(default=None, description="e.g. snr_db p05 >= 10")
    every: str | None = Field(default=None, description="condition that is false of no row, e.g. dnsmos_ovrl between 1 and 5")
    where: str | None = Field(default=None, description="condition of the rows that count")
    name: str | None = Field(default=None, description="for the report; the rule itself by default")
    severity: Literal["error", "warning"] = Field(default="error", description="a warning does not fail the command")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"rule": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_one(self) -> RuleConfig:
        if (self.rule is None) == (self.every is None):
            raise ValueError("a rule has either 'rule' or 'every'")
        return self

    def parsed(self, rows: Rows) -> Rule:
        """Raises RequestError at what cannot be read, or names no column."""
        rule = parse_rule(self.rule if self.rule is not None else f"every {self.every}", rows)
        if self.where is None:
            return rule
        if rule.where is not None:
            raise RequestError(f"rule {rule.text!r} has a scope of its own; put it into one place with where: {self.where!r}")
        return Rule(rule.text, rule.measure, rule.requirement, parse_condition(self.where, rows, "where"))


class Expectations(RecipeModel):
    """A file of rules."""

    table: str | None = Field(default=None, description="table of a corpus, split of a pack; clips or all documents by default")
    rules: list[RuleConfig] = Field(min_length=1)  # a text stands for one with nothing but ``rule``


def read_expectations(path: str) -> Expectations:
    """Raises RequestError naming the key that is wrong, or where there is no file."""
    if not os.path.exists(path):
        raise RequestError(f"rules file {path!r} does not exist; write one with `rules:` and a list, e.g. `- snr_db p05 >= 10`")
    with open(path, encoding="utf-8") as file:
        return decode_recipe(Expectations, file.read(), path)


class Witnesses:
    """Tally: how many rows there are of a kind, and the first of them by name."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.names: list[str] = []

    def add(self, keys: pa.ChunkedArray | None, mask: pa.ChunkedArray | None) -> None:
        if mask is None or not (num := int(pc.sum(mask).as_py() or 0)):
            return
        self.num_rows += num
        if keys is not None and len(self.names) < NAMED_ROWS:
            found = keys.filter(mask).slice(0, NAMED_ROWS - len(self.names)).to_pylist()
            self.names += [key.hex() if isinstance(key, bytes) else str(key) for key in found]

    def merge(self, other: Self) -> None:
        self.num_rows += other.num_rows
        self.names = [*self.names, *other.names][:NAMED_ROWS]


class RuleTally:
    """Tally: the measure of one rule over the rows in its scope, and the rows that pull it to either side."""

    def __init__(self, rule: Rule, key: str | None) -> None:
        self.rule, self._key = rule, key
        self.low, self.high = Witnesses(), Witnesses()

    @property
    def columns(self) -> Sequence[str]:
        where = self.rule.where.columns if self.rule.where else ()
        return list(dict.fromkeys((*self.rule.measure.columns, *where, *([self._key] if self._key else []))))

    def add(self, table: pa.Table) -> None:
        scope = table.select(self.columns)
        if self.rule.where is not None:
            scope = scope.filter(self.rule.where.mask(scope))
        measure, numbers = self.rule.measure, self.rule.requirement.numbers
        keys = scope[self._key] if self._key else None
        measure.add(scope)
        self.low.add(keys, measure.too_low(scope, min(numbers)))
        self.high.add(keys, measure.too_high(scope, max(numbers)))

    def merge(self, other: Self) -> None:
        self.rule.measure.merge(other.rule.measure)
        self.low.merge(other.low)
        self.high.merge(other.high)


@dataclass(frozen=True)
class Outcome:
    """What became of one rule. ``rows`` names the first of the ``num_rows`` that are to blame, where rows can be."""

    name: str
    rule: str
    severity: str
    verdict: str  # holds | fails | undecided (the bound lies within the error of a sketch, or the value is no number)
    value: float | None
    error: str
    num_rows: int
    rows: list[str]

    def line(self) -> str:
        """The outcome for people."""
        mark = MARKS[self.verdict] if self.severity == "error" or self.verdict == "holds" else f"warning ({self.verdict})"
        found = "; nothing to measure" if self.value is None else f"; it is {number(self.value)}"
        told = "" if self.rule.lower().startswith("every") else found
        error = f" ({self.error})" if self.error else ""
        undecided = "; the bound lies within the sketch's error" if self.verdict == "undecided" and self.error else ""
        blamed = f"; {counted(self.num_rows, 'row')}" if self.num_rows else ""
        named = f": {', '.join(self.rows)}{', …' if self.num_rows > len(self.rows) else ''}" if self.rows else ""
        title = self.rule if self.name == self.rule else f"{self.name}: {self.rule}"
        return f"{mark:<9} {title}{told}{error}{undecided}{blamed}{named}"


def check(rows: Rows, expectations: Expectations, scheduler: str | None = None) -> list[Outcome]:
    """The outcome of every rule, in order. Raises RequestError before any row is read where a rule makes no sense."""
    key = next((name for name in KEYS if name in rows.schema.names), None)
    tallies = [RuleTally(config.parsed(rows), key) for config in expectations.rules]
    found = fold(rows, tallies, scheduler, rows.table)
    return [_outcome(config, tally) for config, tally in zip(expectations.rules, found, strict=True)]


def _outcome(config: RuleConfig, tally: RuleTally) -> Outcome:
    rule, measure = tally.rule, tally.rule.measure
    holds = None if measure.value is None else rule.requirement.holds(measure)
    verdict = "holds" if holds else "undecided" if holds is None and measure.value is not None else "fails"
    blamed = Witnesses()
    if verdict == "fails" and measure.value is not None:
        blamed = tally.low if rule.requirement.is_missed_below(measure) else tally.high
    name = config.name or rule.text
    return Outcome(name, rule.text, config.severity, verdict, measure.value, measure.error, blamed.num_rows, blamed.names)


def has_failed(outcomes: Sequence[Outcome]) -> bool:
    """Whether a rule of severity error was not seen to hold."""
    return any(outcome.verdict != "holds" and outcome.severity == "error" for outcome in outcomes)


def junit(outcomes: Sequence[Outcome], uri: str) -> bytes:
    """The outcomes as JUnit XML, which CI systems show; a warning is a test that was skipped with a reason."""
    failed = [outcome for outcome in outcomes if has_failed([outcome])]
    suite = ElementTree.Element("testsuite", name=uri, tests=str(len(outcomes)), failures=str(len(failed)))
    for outcome in outcomes:
        case = ElementTree.SubElement(suite, "testcase", name=outcome.name, classname=uri)
        if outcome.verdict != "holds":
            ElementTree.SubElement(case, "failure" if outcome in failed else "skipped", message=outcome.line())
    made: Any = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return bytes(made)
