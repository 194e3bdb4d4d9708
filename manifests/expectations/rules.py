"""The language of rules: what must hold of a table, in one line.

    rule       := "every" [":"] condition
                | measure ["where" condition] test
    measure    := COLUMN statistic | statistic "of" COLUMN
                | "share" "of" ["hours" "of"] condition | "null" "share" "of" COLUMN
                | ("count" | "hours") [("of" | "where") condition] | "distinct" ["of"] COLUMN
    statistic  := "p" NUMBER (a percentile: p05, p99.9) | "median" | "mean" | "min" | "max" | "sum"
    test       := ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") NUMBER | "between" NUMBER "and" NUMBER

``manifests.conditions`` has the conditions. ``every`` fails of rows for which its condition is false: a null is an abstention,
and fails nothing (add ``and COLUMN is not null`` where it should). A column that is named like a word of the language
stands in ``"…"``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.conditions import OPERATORS, SPELLINGS, Condition, Not, read_condition
from manifests.errors import RequestError
from manifests.expectations.measures import STATISTICS, Amount, Distinct, Measure, Quantile, Statistic, null_share
from manifests.grammar import Sentence
from manifests.rows import Rows, resolve
from manifests.selection import length_of

PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Requirement:
    """``sign`` is one of ORDERS with one number, or ``between`` with two."""

    sign: str
    numbers: tuple[float, ...]

    def holds(self, measure: Measure) -> bool | None:
        """None where the measure cannot tell."""
        found = [self._passes(measure.order(number), sign) for number, sign in self._comparisons()]
        return False if False in found else None if None in found else True

    def is_missed_below(self, measure: Measure) -> bool:
        """Of what does not hold: whether the value is too low, not too high."""
        return any(measure.order(number) == -1 for number, sign in self._comparisons() if sign in ("=", ">", ">="))

    def _comparisons(self) -> list[tuple[float, str]]:
        signs = (">=", "<=") if self.sign == "between" else (self.sign,)
        return list(zip(self.numbers, signs, strict=True))

    @staticmethod
    def _passes(order: int | None, sign: str) -> bool | None:
        return None if order is None else ORDERS[sign](order, 0)


@dataclass(frozen=True)
class Rule:
    """What is measured of which rows (all without ``where``), and what must hold of it."""

    text: str
    measure: Measure
    requirement: Requirement
    where: Condition | None = None


def parse_rule(text: str, rows: Rows) -> Rule:
    """The rule over the columns of ``rows``. Raises RequestError at what cannot be read, with its place, or names no column."""
    sentence = Sentence(text, "rule")
    if sentence.skip_word("every"):
        sentence.skip_sign(":")
        measure: Measure = Amount(Not(read_condition(sentence, rows)), None, is_share=False)
        sentence.expect_end("'and', 'or' or the end")
        return Rule(text, measure, Requirement("=", (0.0,)))
    make = _measure(sentence, rows)
    where = read_condition(sentence, rows) if sentence.skip_word("where") else None
    requirement = _requirement(sentence)
    sentence.expect_end()
    return Rule(text, make(requirement), requirement, where)


def _measure(sentence: Sentence, rows: Rows) -> Callable[[Requirement], Measure]:
    """What makes the measure once it is known what is required of it."""
    if amount := sentence.skip_word("count", "hours"):
        length = None
        if amount == "hours" and (length := length_of(rows)) is None:
            raise RequestError(f"rule {sentence.text!r}: the {rows.table} have no length; count rows instead")
        condition = read_condition(sentence, rows) if sentence.skip_word("of", "where") else None
        return lambda _: Amount(condition, length, is_share=False)
    if sentence.skip_word("share"):
        sentence.expect_word("of")
        is_hours = sentence.token.is_word("hours") and sentence.after.is_word("of")
        if is_hours:
            sentence.take()
            sentence.take()
        met = read_condition(sentence, rows)
        return lambda _: Amount(met, length_of(rows) if is_hours else None, is_share=True)
    if sentence.skip_word("null"):
        sentence.expect_word("share")
        sentence.expect_word("of")
        column = resolve(rows, sentence.expect_name())
        return lambda _: null_share(column)
    if sentence.skip_word("distinct"):
        sentence.skip_word("of")
        column = resolve(rows, sentence.expect_name())
        if pa.types.is_nested(held := rows.schema.field(column).type):
            raise RequestError(f"rule {sentence.text!r}: column {column!r} holds {held}; distinct is of single values")
        return lambda _: Distinct(column)
    return _statistic(sentence, rows)


def _statistic(sentence: Sentence, rows: Rows) -> Callable[[Requirement], Measure]:
    """``p05 of snr_db`` or ``snr_db p05``."""
    if sentence.after.is_word("of") and sentence.token.kind == "word":
        share, kind = _kind(sentence)
        sentence.expect_word("of")
        column = resolve(rows, sentence.expect_name())
    else:
        column = resolve(rows, sentence.expect_name("a measure (count, hours, share of, null share of, distinct, a column)"))
        share, kind = _kind(sentence)
    held = rows.schema.field(column).type
    if not (pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_boolean(held)):
        raise RequestError(f"rule {sentence.text!r}: column {column!r} holds {held}; {kind} is of numbers")
    if share is None:
        return lambda _: Statistic(kind, column)
    quantile = share
    return lambda requirement: Quantile(quantile, column, requirement.numbers)


def _kind(sentence: Sentence) -> tuple[float | None, str]:
    """(share of a quantile, name); the share is None of what is none."""
    token = sentence.token
    percentile = PERCENTILE.fullmatch(token.value) if token.kind == "word" else None
    if percentile is None and not token.is_word("median", *STATISTICS):
        raise sentence.error(f"a percentile (p05), median, {', '.join(STATISTICS)}")
    name = sentence.take().value.lower()
    if percentile:
        return float(percentile[1]) / 100, name
    return (0.5 if name == "median" else None), name


def _requirement(sentence: Sentence) -> Requirement:
    if sign := sentence.skip_sign(*OPERATORS, *SPELLINGS):
        return Requirement(SPELLINGS.get(sign, sign), (sentence.expect_number(),))
    if not sentence.skip_word("between"):
        raise sentence.error("a comparison with a number, or 'between'")
    low = sentence.expect_number()
    sentence.expect_word("and")
    high = sentence.expect_number()
    if high < low:
        raise RequestError(f"rule {sentence.text!r}: nothing is between {low:g} and {high:g}; write the smaller number first")
    return Requirement("between", (low, high))
