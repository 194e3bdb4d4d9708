"""What the inputs say of recordings, put together over all inputs of the same bytes, as tables.

A recording belongs to one unit; others may hold inputs of the same bytes (``Snapshot.shadowed``), and what those say
counts as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manifests.corpus import Corpus, UnitView
from manifests.schema import INPUTS
from manifests.snapshots import INGEST


class FactsReader:
    """Facts of the recordings of one snapshot. Threads may share one."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        # recording -> units that hold an input of its bytes without owning it
        self._guests: dict[bytes, list[str]] = {}
        for unit, recordings in corpus.snapshot.shadowed.items():
            for recording in recordings:
                self._guests.setdefault(bytes.fromhex(recording), []).append(unit)

    def of_units(self, units: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """``recording_id`` and ``columns`` of INPUTS, a row a recording that the units own or hold inputs of.

        Of each fact the first that is known, in plan order.
        """
        read = ["recording_id", *columns]
        rows = self._inputs(units, read)
        if self._guests:
            owned = set(rows["recording_id"].to_pylist())
            others = {unit for recording in owned & self._guests.keys() for unit in self._guests[recording]} - {*units}
            held = {unit: UnitView(self._corpus, unit).inputs(read) for unit in others}
            if held:
                own = {unit: UnitView(self._corpus, unit).inputs(read) for unit in units}
                rows = pa.concat_tables([table for _, table in sorted((held | own).items())])  # the order of ids is plan order
        rows = rows.filter(pc.is_valid(rows["recording_id"]))
        # One thread: only then is the first of a group the first of the table.
        grouped = rows.group_by("recording_id", use_threads=False).aggregate([(name, "first") for name in columns])
        return grouped.rename_columns({f"{name}_first": name for name in columns})

    def _inputs(self, units: Sequence[str], columns: list[str]) -> pa.Table:
        corpus = self._corpus
        hidden = any(UnitView(corpus, unit).hidden_inputs for unit in units)
        committed = [unit for unit in units if corpus.has(INGEST, unit)]
        if hidden or not committed:
            parts = [UnitView(corpus, unit).inputs(columns) for unit in units]
            return pa.concat_tables([INPUTS.empty_table().select(columns), *parts])
        return corpus.tables.read_many(INGEST, corpus.fingerprint(INGEST), committed, "inputs", columns)[0]
