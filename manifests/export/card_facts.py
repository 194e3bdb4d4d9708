"""The figures of a dataset card: one pass over the rows, and what heads, parts and recipes say. What nobody knows is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.contracts import ModelFact
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.figures import build_recipe
from manifests.fold import fold
from manifests.open_rows import corpus_rows
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.parts import PartFacts
from manifests.snapshots import layer_output

LENGTH_EDGES_S = (0, 1, 2, 3, 5, 8, 12, 20, 30, 60, 120, 300)  # the last bin has all that is longer
CORPUS_COLUMNS = {
    "language": "clip.language",
    "source": "input.source",
    "licence": "input.licence",
    "consent": "input.consent",
    "terms": "input.terms",
    "attribution": "input.attribution",
    "speaker": "clip.speaker",
    "synthesizer": "input.synthesizer",
}
PACK_COLUMNS = ("split", "language", "source", "licence", "speaker", "text_source", "synthesizer")


class Group(NamedTuple):
    """Rows of one value; None where it is not known."""

    value: str | None
    num_rows: int
    hours: float


@dataclass(frozen=True)
class MadeBy:
    """A part that made labels, and the weights it ran."""

    output: str
    part: str
    version: str | None
    models: tuple[ModelFact, ...]


@dataclass(frozen=True)
class CardFacts:
    """What a card says. ``groups`` are by name of the fact, the most hours first."""

    kind: str  # corpus | pack
    uri: str
    origin: Mapping[str, Any]  # what of it decides the rows, by the names that an export has for it
    version: str | None
    groups: Mapping[str, Sequence[Group]]
    lengths: Sequence[int]  # rows by LENGTH_EDGES_S
    layers: Mapping[str, Sequence[Group]] = field(default_factory=dict)  # layer -> its statuses; None where it was not run
    num_transcribed: int | None = None  # clips of a recording whose source has a transcript
    tasks: Sequence[str] = ()
    made_by: Sequence[MadeBy] | None = None  # None where it cannot be told
    recipe: Mapping[str, Any] | None = None
    funnel: Sequence[Mapping[str, Any]] = ()

    @property
    def identity(self) -> dict[str, str]:
        """The origin for people."""
        return {name.removesuffix("_id").replace("_", " "): str(value) for name, value in self.origin.items()}

    @property
    def num_rows(self) -> int:
        return sum(group.num_rows for group in self.groups["language"])

    @property
    def hours(self) -> float:
        return sum(group.hours for group in self.groups["language"])

    def known(self, fact: str) -> list[str]:
        """Values of a fact, the most hours first."""
        return [group.value for group in self.groups.get(fact, ()) if group.value is not None]

    def unknown(self, fact: str) -> Group:
        """The rows whose value nobody knows."""
        return next((group for group in self.groups.get(fact, ()) if group.value is None), Group(None, 0, 0.0))


class HoursBy:
    """Tally: rows and seconds of each value of a column. Exact, so in memory is an entry a value."""

    def __init__(self, column: str, seconds: str) -> None:
        self.columns = (column, seconds)
        self._counts = pa.table(
            {"value": pa.array([], pa.string()), "num": pa.array([], pa.int64()), "s": pa.array([], pa.float64())}
        )

    def add(self, table: pa.Table) -> None:
        value, seconds = (table[name] for name in self.columns)
        self._join(pa.table({"value": value, "num": pa.repeat(1, table.num_rows), "s": seconds}))

    def merge(self, other: Self) -> None:
        self._join(other._counts)

    def _join(self, more: pa.Table) -> None:
        whole = pa.concat_tables([self._counts, more])
        # One thread: floats are summed in one order.
        grouped = whole.group_by("value", use_threads=False).aggregate([("num", "sum"), ("s", "sum")])
        self._counts = grouped.rename_columns({"num_sum": "num", "s_sum": "s"}).select(["value", "num", "s"])

    def groups(self) -> list[Group]:
        """The most hours first, then by name."""
        made = [Group(row["value"], row["num"], (row["s"] or 0.0) / 3600) for row in self._counts.to_pylist()]
        return sorted(made, key=lambda group: (-group.hours, -group.num_rows, group.value is None, group.value or ""))


class Lengths:
    """Tally: rows by LENGTH_EDGES_S; those without audio are in none."""

    def __init__(self, seconds: str) -> None:
        self.columns = (seconds,)
        self.counts = np.zeros(len(LENGTH_EDGES_S), np.int64)

    def add(self, table: pa.Table) -> None:
        values = table[self.columns[0]].drop_null().to_numpy()
        self.counts += np.histogram(values, (*LENGTH_EDGES_S, np.inf))[0]

    def merge(self, other: Self) -> None:
        self.counts += other.counts


class Tasks:
    """Tally: names in the list column ``tasks``."""

    columns = ("tasks",)

    def __init__(self) -> None:
        self.names = set[str]()

    def add(self, table: pa.Table) -> None:
        self.names |= {*pc.unique(pc.list_flatten(table["tasks"])).to_pylist()}

    def merge(self, other: Self) -> None:
        self.names |= other.names


class Known:
    """Tally: rows in which a column is known."""

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.num = 0

    def add(self, table: pa.Table) -> None:
        self.num += table.num_rows - table[self.columns[0]].null_count

    def merge(self, other: Self) -> None:
        self.num += other.num


def corpus_facts(corpus: Corpus, scheduler: str | None = None) -> CardFacts:
    """The facts of a corpus's clips."""
    rows, seconds = corpus_rows(corpus), "clip.duration_s"
    layers = [name for name in sorted(corpus.layers()) if f"{name}.status" in rows.schema.names]  # not those of no unit yet
    by = {fact: HoursBy(column, seconds) for fact, column in CORPUS_COLUMNS.items()}
    statuses = {layer: HoursBy(f"{layer}.status", seconds) for layer in layers}
    asked: list[Any] = [*by.values(), *statuses.values(), Lengths(seconds), Known("input.text")]
    *counted, lengths, texts = fold(rows, asked, scheduler, "card")
    groups = [tally.groups() for tally in counted]
    hears_text = any(f"{layer}.text" in rows.schema.names for layer in layers)
    return CardFacts(
        kind="corpus",
        uri=corpus.store.uri,
        origin={"corpus_id": corpus.corpus_id, "snapshot": corpus.snapshot.number},
        version=str(corpus.snapshot.number),
        groups=dict(zip(by, groups, strict=False)),
        lengths=lengths.counts.tolist(),
        layers=dict(zip(layers, groups[len(by) :], strict=True)),
        num_transcribed=texts.num,
        tasks=["asr"] if texts.num or hears_text else [],
        made_by=made_by(corpus, corpus.snapshot.current),
        recipe=build_recipe(corpus.store) or None,
    )


def pack_facts(pack: Pack, corpus: Corpus | None = None, scheduler: str | None = None) -> CardFacts:
    """The facts of a pack's documents; the ``corpus`` that it was made from knows the models behind its labels.

    Raises RequestError where the corpus is another one.
    """
    rows, lineage = PackRows(pack), pack.head.get("lineage") or {}
    if corpus is not None and lineage.get("corpus_id") != corpus.corpus_id:
        raise RequestError(
            f"corpus {corpus.store.uri!r} is {corpus.corpus_id!r}, and the pack was made from {lineage.get('corpus_id')!r}; give that one"
        )
    by = {fact: HoursBy(fact, "duration_s") for fact in PACK_COLUMNS}
    asked: list[Any] = [*by.values(), Lengths("duration_s"), Tasks()]
    *counted, lengths, tasks = fold(rows, asked, scheduler, "card")
    outputs = {layer_output(lineage["clip_set"], name): mark for name, mark in (lineage.get("layers") or {}).items()}
    return CardFacts(
        kind="pack",
        uri=pack.store.uri,
        origin={"pack_id": pack.pack_id},
        version=None,  # an id is no version
        groups={fact: tally.groups() for fact, tally in zip(by, counted, strict=True)},
        lengths=lengths.counts.tolist(),
        tasks=sorted(tasks.names),
        made_by=None if corpus is None else made_by(corpus, outputs),
        recipe=pack.head.get("recipe"),
        funnel=pack.head.get("funnel") or (),
    )


def made_by(corpus: Corpus, outputs: Mapping[str, str]) -> list[MadeBy]:
    """The parts behind outputs (output -> fingerprint) of a corpus, by name of the output."""
    read = ((output, PartFacts.read(corpus.store, output, mark)) for output, mark in sorted(outputs.items()))
    return [MadeBy(output, part.name, part.version, _once(part.models)) for output, part in read if part is not None]


def _once(models: Sequence[ModelFact]) -> tuple[ModelFact, ...]:
    """Several files of one package are one model."""
    return tuple({(model.name, model.revision, model.licence): model for model in models}.values())
