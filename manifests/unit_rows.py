"""The tables of a corpus that have rows of their own in every unit, slice by slice: recordings, inputs, quarantine, spans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import pyarrow as pa

from manifests.compacted import Compaction, read_compaction
from manifests.corpus import Corpus, UnitView
from manifests.rows import Slice, rows_only
from manifests.schema import FAILURES, INPUTS, QUARANTINE, RECORDINGS, SPANS
from manifests.snapshots import INGEST, spans_output

SLICE_ROWS = 1 << 17
SLICE_UNITS = 64  # of those whose rows nobody has counted
INGESTED = {"recordings": RECORDINGS, "inputs": INPUTS, "quarantine": QUARANTINE}


class CorpusRows(ABC):
    """What the tables of a corpus share: slices of whole units."""

    def __init__(self, corpus: Corpus, table: str, counted: tuple[str, str]) -> None:
        """``counted`` is the (output, role) whose rows bound a slice."""
        self.corpus, self.table = corpus, table
        self.slices = unit_slices(corpus, *counted)

    def __reduce__(self) -> tuple[Callable[..., CorpusRows], tuple[str, int, str]]:
        from manifests.open_rows import reopened

        return reopened, (self.uri, self.corpus.snapshot.number, self.table)

    @property
    def uri(self) -> str:
        return self.corpus.store.uri

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """As ``Rows`` has it."""

    @abstractmethod
    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        """As ``Rows`` has it."""


class UnitRows(CorpusRows):
    """A table that has rows of its own in every unit; columns by their plain names."""

    def __init__(self, corpus: Corpus, table: str) -> None:
        """``table`` is one of ``unit_tables``."""
        kind, _, name = table.partition(":")
        read: Callable[[UnitView, list[str]], pa.Table]
        if kind in INGESTED:
            output, schema, read = INGEST, INGESTED[kind], getattr(UnitView, kind)
        elif kind == "spans":
            output, schema, read = spans_output(name), SPANS, lambda view, columns: view.spans(name, columns)
        else:
            output, schema, read = spans_output(name), FAILURES, lambda view, columns: view.failures(name, columns)
        super().__init__(corpus, table, (output, kind))
        self._output, self._schema, self._read = output, schema, read

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        views = [UnitView(self.corpus, unit) for unit in part.units]
        done = [view.unit_id for view in views if self.corpus.has(self._output, view.unit_id)]
        if columns and done and not any(view.hidden_recordings or view.hidden_inputs or view.is_cut for view in views):
            mark, role = self.corpus.fingerprint(self._output), self.table.partition(":")[0]
            return self.corpus.tables.read_many(self._output, mark, done, role, list(columns))[0]
        read = [self._read(view, list(columns)) for view in views]
        return pa.concat_tables([self._schema.empty_table().select(list(columns)), *read]) if columns else rows_only(read)


def unit_tables(corpus: Corpus) -> list[str]:
    """Names of the tables that have rows of their own in every unit, but for ``clips``."""
    spans = [output.partition("/")[2] for output in sorted(corpus.snapshot.current) if output.startswith("spans/")]
    return [*INGESTED, *(f"{kind}:{name}" for name in spans for kind in ("spans", "failures"))]


def unit_slices(corpus: Corpus, output: str, role: str) -> list[Slice]:
    """Units in plan order, cut at SLICE_ROWS, or at SLICE_UNITS where no compaction counts their rows."""
    path = corpus.snapshot.compacted.get(output, {}).get(corpus.snapshot.current.get(output, ""))
    compaction: Compaction | None = None if path is None else read_compaction(corpus.store, path)
    slices, units, rows = list[Slice](), list[str](), 0
    for unit in corpus.snapshot.units:
        place = compaction.find(role, unit) if compaction else None
        count = SLICE_ROWS // SLICE_UNITS if place is None else place.num_rows
        if units and rows + count > SLICE_ROWS:
            slices.append(Slice(tuple(units)))
            units, rows = [], 0
        units.append(unit)
        rows += count
    return [*slices, Slice(tuple(units))] if units else slices
