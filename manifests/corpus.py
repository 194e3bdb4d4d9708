"""Reading a corpus: one snapshot of it, as Arrow tables that join by position, unit by unit or whole.

Readers see only what a snapshot names. A recording whose bytes came with two units belongs to one of them; its rows in
the other are *shadowed*: they lie on disk, and no reader sees them. So are the facts of inputs that a later unit took
again, and whatever was taken down (``manifests.tombstones``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import AudioReader
from manifests.commits import Commit
from manifests.decision_tables import DecisionTable, read_decision_table
from manifests.errors import RequestError
from manifests.parts import PartFacts
from manifests.schema import CLIPS, FAILURES, INPUTS, OF_WHOLE, QUARANTINE, RECORDINGS, SPANS
from manifests.snapshots import (
    INGEST,
    Snapshot,
    clips_output,
    latest_snapshot_number,
    layer_output,
    read_head,
    read_snapshot,
    spans_output,
)
from manifests.store import Store
from manifests.tables import UnitTables, open_part
from manifests.tombstones import TABLE as TAKEDOWNS
from manifests.tombstones import WHOLE_KEYS, Tombstones

Columns = list[str] | None


class Corpus:
    """One snapshot of a corpus. Whole tables are for corpora that fit in memory; ``views`` are for any."""

    def __init__(self, store: Store, head: dict[str, Any], snapshot: Snapshot) -> None:
        self.store, self.head, self.snapshot = store, head, snapshot
        self.tables = UnitTables(store, snapshot.compacted)
        self._done: dict[str, set[str]] = {}

    @staticmethod
    def open(uri: str, snapshot: int | None = None) -> Corpus:
        """The newest snapshot, or the one asked for. Raises RequestError when there is no corpus or no snapshot."""
        store = Store(uri)
        head = read_head(store)
        if head is None:
            raise RequestError(
                f"no corpus at {uri!r} (no corpus.json); build one with `stepwell corpus build SOURCE --out {uri}`"
            )
        while True:
            number = latest_snapshot_number(store) if snapshot is None else snapshot
            try:
                return Corpus(store, head, read_snapshot(store, number))
            except FileNotFoundError as error:
                # A takedown removes the snapshots before its own: then there is a newer one to look at.
                if snapshot is None and latest_snapshot_number(store) > number:
                    continue
                which = "yet" if number < 0 else number
                raise RequestError(f"corpus {uri!r} has no snapshot {which}; finish its build first") from error

    @property
    def corpus_id(self) -> str:
        return str(self.head["corpus_id"])

    @property
    def clip_set(self) -> str:
        return self.snapshot.clip_set

    def fingerprint(self, output: str) -> str:
        """Fingerprint that the last build asked for. Raises RequestError listing what there is."""
        if output not in self.snapshot.current:
            raise RequestError(f"corpus {self.store.uri!r} has no {output!r}; it has {sorted(self.snapshot.current)}")
        return self.snapshot.current[output]

    def layers(self) -> dict[str, str]:
        """Layer name -> current fingerprint, of the current clip set."""
        prefix = layer_output(self.clip_set, "")
        return {o.removeprefix(prefix): f for o, f in sorted(self.snapshot.current.items()) if o.startswith(prefix)}

    def part(self, output: str) -> PartFacts | None:
        """What made an output: the part, its models and their licences; None of what no part made."""
        return PartFacts.read(self.store, output, self.fingerprint(output))

    @property
    def tombstones(self) -> Tombstones:
        """What was taken down."""
        return Tombstones.of(self.store, self.snapshot)

    def commit(self, output: str, fingerprint: str, unit: str) -> Commit:
        """Commit of one unit, read once. Raises WorkError when there is none."""
        return self.tables.commit(output, fingerprint, unit)

    def has(self, output: str, unit: str) -> bool:
        """Whether the snapshot names the unit's commit of an output, by its current fingerprint."""
        if output not in self._done:
            self._done[output] = set(self.snapshot.outputs.get(output, {}).get(self.fingerprint(output), ()))
        return unit in self._done[output]

    def views(self) -> Iterator[UnitView]:
        """Every unit in plan order; what the reader of one holds is free before the next."""
        return (UnitView(self, unit) for unit in self.snapshot.units)

    def inputs(self) -> pa.Table:
        """INPUTS, each once, in plan order."""
        return self._whole(UnitView.inputs, INPUTS)

    def recordings(self) -> pa.Table:
        """RECORDINGS, each once."""
        return self._whole(UnitView.recordings, RECORDINGS)

    def quarantine(self) -> pa.Table:
        """QUARANTINE of the inputs that count."""
        return self._whole(UnitView.quarantine, QUARANTINE)

    def spans(self, segmenter: str) -> pa.Table:
        """SPANS of one segmenter."""
        return self._whole(lambda view: view.spans(segmenter), SPANS)

    def failures(self, segmenter: str) -> pa.Table:
        """FAILURES: channels that the segmenter failed on."""
        return self._whole(lambda view: view.failures(segmenter), FAILURES)

    def clips(self) -> pa.Table:
        """CLIPS of the current clip set."""
        return self._whole(UnitView.clips, CLIPS)

    def layer(self, name: str) -> pa.Table:
        """Rows of a layer, in the order of ``clips()``.

        Raises RequestError when the corpus has no such layer, or not yet for every unit.
        """
        output = layer_output(self.clip_set, name)
        missing = [unit for unit in self.snapshot.units if not self.has(output, unit)]
        if missing:
            raise RequestError(
                f"layer {name!r} lacks {len(missing)} of {len(self.snapshot.units)} units; build again to finish it"
            )
        return self._whole(lambda view: view.layer(name), pa.schema([]))

    def decision_table(self, name: str) -> DecisionTable:
        """The head of a decision table. Raises RequestError listing those there are."""
        if name not in self.snapshot.tables:
            there = ", ".join(sorted(self.snapshot.tables)) or "none"
            raise RequestError(f"corpus {self.store.uri!r} has no decision table {name!r} (tables: {there}); make it first")
        return read_decision_table(self.store, self.snapshot.tables[name])

    def decisions(self, name: str, role: str | None = None, columns: Columns = None) -> pa.Table:
        """A table of a decision table, by default the first of its roles; that of all units, or of all clips in their order.

        Raises RequestError where there is none, or none of some unit.
        """
        head = self.decision_table(name)
        role = role or head.roles[0]
        if role in head.wholes:
            with open_part(self.store, head.wholes[role].path) as file:
                return self.shown_decisions(name, file.read(columns=self.deciding(columns), use_threads=False), columns)
        if role not in head.roles:
            raise RequestError(f"decision table {name!r} has no {role!r}; it has {', '.join(head.roles)}")
        return self._whole(lambda view: view.decisions(name, role, columns), pa.schema([]))

    @staticmethod
    def deciding(columns: Columns) -> Columns:
        """The columns, and those by which rows of a decision table are shown or not."""
        return None if columns is None else [*columns, *({*WHOLE_KEYS} - {*columns})]

    def shown_decisions(self, name: str, rows: pa.Table, columns: Columns) -> pa.Table:
        """Rows of a decision table of the whole corpus, read with ``deciding``, without those of what was taken down."""
        shown = rows if name == TAKEDOWNS else self.tombstones.without(rows, WHOLE_KEYS)
        return shown.select(shown.column_names if columns is None else columns)

    def audio(self) -> AudioReader:
        """Reader of the stored audio of all units; a unit whose inputs were taken again yields to those that took them."""
        ordered = sorted(self.snapshot.units, key=lambda unit: unit in self.snapshot.superseded)
        taken = {recording for recordings in self.snapshot.taken_recordings.values() for recording in recordings}
        return AudioReader(self.store, [tar for unit in ordered for tar in UnitView(self, unit).audio_tars()], hidden=taken)

    def _whole(self, read: Callable[[UnitView], pa.Table], schema: pa.Schema) -> pa.Table:
        parts = [read(view) for view in self.views()]
        return pa.concat_tables(parts) if parts else schema.empty_table()


class UnitView:
    """What a snapshot says of one unit: tables without shadowed rows, clips and layers aligned row for row.

    A table of an output that the unit has not committed is empty.
    """

    def __init__(self, corpus: Corpus, unit_id: str) -> None:
        self.corpus, self.unit_id = corpus, unit_id
        snapshot = corpus.snapshot
        self.hidden_recordings = [
            bytes.fromhex(r) for hidden in (snapshot.shadowed, snapshot.taken_recordings) for r in hidden.get(unit_id, ())
        ]
        self.hidden_inputs = [
            bytes.fromhex(i) for hidden in (snapshot.superseded, snapshot.taken_inputs) for i in hidden.get(unit_id, ())
        ]
        self.is_cut = unit_id in snapshot.cut_recordings  # spans of its recordings were taken down

    def inputs(self, columns: Columns = None) -> pa.Table:
        """INPUTS rows, but for those that a later unit took again; no transcript of what is cut."""
        says_of_whole = columns is None or not {*OF_WHOLE}.isdisjoint(columns)
        if not self.is_cut or not says_of_whole:
            return self._read(INGEST, "inputs", INPUTS, columns, "input_id", self.hidden_inputs)
        asked = None if columns is None else [*columns, *({"recording_id"} - {*columns})]
        rows = self._read(INGEST, "inputs", INPUTS, asked, "input_id", self.hidden_inputs)
        return self.corpus.tombstones.unsaid(rows).select(rows.column_names if columns is None else columns)

    def recordings(self, columns: Columns = None) -> pa.Table:
        """RECORDINGS rows that the unit owns."""
        return self._read(INGEST, "recordings", RECORDINGS, columns, "recording_id", self.hidden_recordings)

    def quarantine(self, columns: Columns = None) -> pa.Table:
        """QUARANTINE rows, but for those of inputs that a later unit took again."""
        return self._read(INGEST, "quarantine", QUARANTINE, columns, "input_id", self.hidden_inputs)

    def spans(self, segmenter: str, columns: Columns = None) -> pa.Table:
        """SPANS rows of the recordings that the unit owns, without what was taken down of them."""
        asked = None if self.is_cut else columns
        rows = self._read(spans_output(segmenter), "spans", SPANS, asked, "recording_id", self.hidden_recordings)
        if not self.is_cut:
            return rows
        return self.corpus.tombstones.outside(rows).select(SPANS.names if columns is None else columns)

    def failures(self, segmenter: str, columns: Columns = None) -> pa.Table:
        """FAILURES rows of the recordings that the unit owns."""
        return self._read(spans_output(segmenter), "failures", FAILURES, columns, "recording_id", self.hidden_recordings)

    def clips(self, columns: Columns = None) -> pa.Table:
        """CLIPS rows of the current clip set, of the recordings that the unit owns."""
        output = clips_output(self.corpus.clip_set)
        if not self.is_cut or not self.corpus.has(output, self.unit_id):
            return self._read(output, "clips", CLIPS, columns, "recording_id", self.hidden_recordings)
        return self._committed_clips(columns).filter(self.shown_clips())

    def taken_clips(self, columns: list[str]) -> pa.Table:
        """CLIPS rows that readers do not see since they were taken down."""
        snapshot, output = self.corpus.snapshot, clips_output(self.corpus.clip_set)
        is_touched = self.is_cut or self.unit_id in snapshot.taken_recordings
        if not is_touched or not self.corpus.has(output, self.unit_id):
            return CLIPS.empty_table().select(columns)
        owned = [bytes.fromhex(recording) for recording in snapshot.shadowed.get(self.unit_id, ())]
        rows = self._committed_clips([*columns, *({"recording_id"} - {*columns})])
        taken = pc.and_(pc.invert(self.shown_clips()), _is_none_of(rows["recording_id"], owned))
        return rows.filter(taken).select(columns)

    def layer(self, name: str, columns: Columns = None) -> pa.Table:
        """Rows of a layer, one a row of ``clips()``. Raises RequestError where the layer lacks the unit."""
        output = layer_output(self.corpus.clip_set, name)
        fingerprint = self.corpus.fingerprint(output)
        if not self.corpus.has(output, self.unit_id):
            raise RequestError(f"layer {name!r} lacks unit {self.unit_id}; build again to finish it")
        rows, shown = self.corpus.tables.read(output, fingerprint, self.unit_id, "layer", columns), self.shown_clips()
        return rows if shown is None else rows.filter(shown)

    def shown_clips(self) -> pa.ChunkedArray | None:
        """Bool, a value a clip that the unit committed: whether readers see it. None: they see all."""
        if not self.hidden_recordings and not self.is_cut:
            return None
        places = ["channel", "start_sample", "end_sample"] if self.is_cut else []
        rows = self._committed_clips(["recording_id", *places])
        shown = _is_none_of(rows["recording_id"], self.hidden_recordings)
        return pc.and_(shown, self.corpus.tombstones.shown(rows)) if self.is_cut else shown

    def _committed_clips(self, columns: Columns) -> pa.Table:
        output = clips_output(self.corpus.clip_set)
        return self.corpus.tables.read(output, self.corpus.fingerprint(output), self.unit_id, "clips", columns)

    def decisions(self, name: str, role: str, columns: Columns = None) -> pa.Table:
        """Rows of a decision table, one a row of ``clips()``. Raises RequestError where it has none of the unit's clips."""
        head = self.corpus.decision_table(name)
        found = head.find(role, self.unit_id, self.corpus.snapshot)
        if found is None:
            raise RequestError(
                f"decision table {name!r} was made over snapshot {head.snapshot} and lacks clips of unit {self.unit_id}; make it again"
            )
        if not self.is_cut and self.unit_id not in self.corpus.snapshot.taken_recordings:
            return self.corpus.tables.row_group(found, columns)
        # The table may have been made before the takedown, or after it.
        read = None if columns is None else [*columns, *({"clip_id"} - {*columns})]
        rows, clips = self.corpus.tables.row_group(found, read), self.clips(["clip_id"])
        kept = rows.filter(pc.is_in(rows["clip_id"], value_set=clips["clip_id"].combine_chunks()))
        return kept.select(rows.column_names if columns is None else columns)

    def audio(self) -> AudioReader:
        """Reader of this unit's stored audio alone."""
        taken = frozenset(self.corpus.snapshot.taken_recordings.get(self.unit_id, ()))
        return AudioReader(self.corpus.store, self.audio_tars(), hidden=taken)

    def audio_tars(self) -> list[str]:
        """Paths of the unit's audio tars: one, or none where no input became a recording."""
        if not self.corpus.has(INGEST, self.unit_id):
            return []
        objects = self.corpus.commit(INGEST, self.corpus.fingerprint(INGEST), self.unit_id).objects
        return [objects["audio"].path] if "audio" in objects else []

    def _read(self, output: str, role: str, schema: pa.Schema, columns: Columns, key: str, hidden: list[bytes]) -> pa.Table:
        """The rows whose ``key`` is none of ``hidden``."""
        fingerprint = self.corpus.fingerprint(output)
        if not self.corpus.has(output, self.unit_id):
            return schema.empty_table().select(schema.names if columns is None else columns)
        if not hidden:
            return self.corpus.tables.read(output, fingerprint, self.unit_id, role, columns)
        read = None if columns is None else [*columns, *({key} - {*columns})]
        rows = self.corpus.tables.read(output, fingerprint, self.unit_id, role, read)
        return rows.filter(_is_none_of(rows[key], hidden)).select(rows.column_names if columns is None else columns)


def _is_none_of(column: pa.ChunkedArray, values: list[bytes]) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(column, value_set=pa.array(values, type=column.type)))
