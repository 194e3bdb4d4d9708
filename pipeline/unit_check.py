"""Checks of one unit: its commits, its tables, and how they refer to each other.

A table that cannot be trusted is told once; what would be compared with it is left out, so that one fault is one line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.commits import Commit, ObjectFact, commit_path, parse_commit
from manifests.compacted import RowGroup
from manifests.earlier_tables import completed, schema_then
from manifests.errors import ContractError
from manifests.ids import clip_id, digest_bytes
from manifests.schema import CLIPS, FAILURES, INPUTS, LAYER_KEYS, QUARANTINE, RECORDINGS, SPANS, STATUSES, check_table
from manifests.snapshots import INGEST, table_roles
from manifests.store import ObjectDetail, Store, parse_table
from manifests.tables import UnitTables
from pipeline.audio_check import AudioCheck
from pipeline.faults import Fault, Key, said
from pipeline.snapshot_check import Output, Places

SCHEMAS = {
    "inputs": INPUTS, "recordings": RECORDINGS, "quarantine": QUARANTINE, "spans": SPANS, "failures": FAILURES, "clips": CLIPS,
}  # fmt: skip


class UnitCheck:
    """One unit, after ``run``.

    ``faults``; ``commits`` that can be read; ``lost``: outputs that lay in parts that are damaged, and nowhere else;
    ``inputs``: INPUTS of each ingest fingerprint that can be trusted; ``rebuilt``: right bytes of indexes by path.
    """

    def __init__(self, store: Store, unit: str, details: Mapping[str, ObjectDetail], places: Places, fast: bool) -> None:
        self.unit, self.faults, self.audio_s = unit, list[Fault](), 0.0
        self.commits: dict[Output, Commit] = {}
        self.lost: set[Output] = set()
        self.inputs: dict[str, pa.Table] = {}
        self.rebuilt: dict[str, bytes] = {}
        self._store, self._details, self._places, self._fast = store, details, places, fast
        self._data: dict[str, bytes] = {}  # objects of tables
        self._tables: dict[tuple[str, str, str], pa.Table] = {}  # output, fingerprint, role: those that can be trusted

    def run(self, outputs: Collection[Output], planned: Collection[bytes] | None, reader: UnitTables) -> None:
        """Check the commits of these outputs; ``planned`` are the unit's inputs, ``reader`` reads compacted tables."""
        self._read_commits(outputs)
        facts = [commit.objects[role] for key, commit in self.commits.items() for role in table_roles(key[0])]
        self._data = dict(self._store.read_all([fact.path for fact in facts if fact.path in self._details]))
        for key, commit in self.commits.items():
            for role in table_roles(key[0]):
                self._check_object(key, role, commit.objects[role], reader)
            for output, mark in commit.reads.items():
                # Asked for again: a listing that a build overtakes may lack what it read first.
                if (output, mark) not in outputs and not self._store.exists(commit_path(output, mark, self.unit)):
                    self._fault("commit_reads_missing", commit.path, f"it reads {output!r} ({mark}), which is not committed", key)
        for (output, mark), commit in self.commits.items():
            kind = output.split("/")[0]
            if output == INGEST:
                self._check_ingest(mark, commit, planned)
            elif kind in ("spans", "clips"):
                self._check_spans((output, mark), commit)
            elif kind == "layers":
                self._check_layer((output, mark), commit)

    def _read_commits(self, outputs: Iterable[Output]) -> None:
        paths = {commit_path(*key, self.unit): key for key in sorted(outputs)}
        for path, data in self._store.read_all(list(paths)):
            key = paths[path]
            try:
                commit = parse_commit(data)
                roles = {*table_roles(key[0]), *({"audio", "audio_index"} & commit.objects.keys() if key[0] == INGEST else ())}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._fault("commit_unreadable", path, f"not a commit ({said(error)})", key)
                continue
            if commit.path != path:
                self._fault("commit_misplaced", path, f"it is the commit {commit.path!r}", key)
            elif commit.objects.keys() != roles or ("audio" in roles) != ("audio_index" in roles):
                self._fault("commit_incomplete", path, f"it names {sorted(commit.objects)}; {key[0]!r} has {sorted(roles)}", key)
            else:
                self.commits[key] = commit

    def _check_object(self, key: Output, role: str, fact: ObjectFact, reader: UnitTables) -> None:
        """A table, in its own object, in a part, or (until the grace is over) in both."""
        compaction = self._places.compactions.get(key)
        place = compaction.find(role, self.unit) if compaction else None
        if place is None and fact.path not in self._data:  # it may have come after the listing
            self._data |= dict(self._store.read_all([fact.path]))
        there = fact.path in self._data
        table = self._parsed(key, role, fact, counts=place is None) if there else None
        if place is not None and place.path not in self._places.bad_parts:
            kept = self._from_part(key, fact, role, place, reader)
            if table is not None and kept is not None and not table.equals(kept):
                self._fault("part_rows", place.path, f"row group {place.number} is not the table of unit {self.unit}", key)
                kept = None
            table = kept
        elif table is None and (place is not None or key in self._places.bad_compactions):
            self.lost.add(key)
        elif not there:
            self._fault("object_missing", fact.path, "its commit names it, and it is gone", key)
        if table is not None and self._has_schema(key, role, fact.path, table):
            self._tables[(*key, role)] = table

    def _parsed(self, key: Output, role: str, fact: ObjectFact, counts: bool) -> pa.Table | None:
        """The table in an object; one that a part replaced (``counts`` is False) breaks nothing when it is damaged."""
        data = self._data[fact.path]
        broken = [key] if counts else []
        if len(data) != fact.num_bytes:
            self._fault("object_size", fact.path, f"{len(data)} bytes; its commit says {fact.num_bytes}", *broken)
        elif digest_bytes(data).hex() != fact.digest:
            self._fault("object_digest", fact.path, f"digest {digest_bytes(data).hex()}; its commit says {fact.digest}", *broken)
        else:
            try:
                table = completed(role, parse_table(data))
            except (pa.ArrowException, OSError) as error:
                self._fault("table_unreadable", fact.path, said(error), *broken)
                return None
            if table.num_rows == fact.num_rows:
                return table
            self._fault("table_rows", fact.path, f"{table.num_rows} rows; its commit says {fact.num_rows}", *broken)
        return None

    def _from_part(self, key: Output, fact: ObjectFact, role: str, place: RowGroup, reader: UnitTables) -> pa.Table | None:
        try:
            table = reader.read(*key, self.unit, role)
        except (pa.ArrowException, OSError, IndexError) as error:
            self._fault("part_rows", place.path, f"row group {place.number}: {said(error)}", key)
            return None
        if table.num_rows == place.num_rows == fact.num_rows:
            return table
        rule = f"the compaction says {place.num_rows}, the commit {fact.num_rows}"
        self._fault("part_rows", place.path, f"row group {place.number} has {table.num_rows} rows; {rule}", key)
        return None

    def _has_schema(self, key: Output, role: str, path: str, table: pa.Table) -> bool:
        keys = [name for name in LAYER_KEYS.names if name in table.column_names]
        try:
            if role == "layer":
                check_table(table.select(keys), LAYER_KEYS, "its first columns")
                if table.column_names[: len(keys)] != LAYER_KEYS.names:
                    raise ContractError(f"columns {table.column_names}; a layer begins with {LAYER_KEYS.names}")
            else:
                check_table(table, schema_then(role, SCHEMAS[role], table), "table")
        except ContractError as error:
            self._fault("table_schema", path, str(error), key)
            return False
        return True

    def _check_ingest(self, mark: str, commit: Commit, planned: Collection[bytes] | None) -> None:
        key = (INGEST, mark)
        inputs, recordings, quarantine = (self._tables.get((*key, role)) for role in table_roles(INGEST))
        if inputs is not None:
            path, ids = commit.objects["inputs"].path, inputs["input_id"].to_pylist()
            self.inputs[mark] = inputs
            if planned is not None and set(ids) != set(planned):
                num_other = len(set(ids) ^ set(planned))
                self._fault("inputs_unplanned", path, f"{num_other} inputs are not those that the plan gives the unit", key)
            if quarantine is not None and (unknown := set(quarantine["input_id"].to_pylist()) - set(ids)):
                self._fault(
                    "quarantine_input_unknown", commit.objects["quarantine"].path, f"{len(unknown)} rows are of no input", key
                )
        if inputs is not None and recordings is not None:
            made, held = set(inputs["recording_id"].drop_null().to_pylist()), recordings["recording_id"].to_pylist()
            if unknown := made - set(held):
                self._fault("input_recording_unknown", path, f"{len(unknown)} inputs became recordings that are not there", key)
            if unknown := set(held) - made:
                path = commit.objects["recordings"].path
                self._fault("recording_without_input", path, f"{len(unknown)} recordings came of no input", key)
        for role, name in (("inputs", "input_id"), ("recordings", "recording_id")):
            if (table := self._tables.get((*key, role))) is not None and pc.count_distinct(table[name]).as_py() < table.num_rows:
                self._fault("row_twice", commit.objects[role].path, f"some {name} stands in two rows", key)
        if recordings is not None:
            self.audio_s += float(sum(np.divide(recordings["num_samples"], recordings["sample_rate_hz"])))
        if "audio" in commit.objects:
            check = AudioCheck(self._store, commit, self._details, self._fast)
            check.run(None if recordings is None else recordings.to_pylist())
            self.faults += check.faults
            self.rebuilt |= check.rebuilt
        elif recordings is not None and recordings.num_rows:
            self._fault("piece_missing", commit.path, f"{recordings.num_rows} recordings and no audio", key)

    def _check_spans(self, key: Output, commit: Commit) -> None:
        """Spans and clips lie within recordings of the unit; clips have the ids of their places, each once."""
        known = self._tables.get((INGEST, commit.reads.get(INGEST, ""), "recordings"))
        recordings = {} if known is None else {row["recording_id"]: row for row in known.to_pylist()}
        for role in table_roles(key[0]):
            table, path = self._tables.get((*key, role)), commit.objects[role].path
            if table is None:
                continue
            if role == "clips" and pc.count_distinct(table["clip_id"]).as_py() < table.num_rows:
                self._fault("row_twice", path, "some clip_id stands in two rows", key)
            for number, row in enumerate(table.to_pylist()):
                code, what = _row_fault(row, recordings) if known is not None else ("", "")
                if role == "clips" and not code and row["clip_id"] != clip_id(*(row[name] for name in CLIPS.names[1:6])):
                    code, what = "clip_id_wrong", f"clip {row['clip_id'].hex()} is not the id of its place"
                if code:
                    self._fault(code, path, f"row {number}: {what}", key)
                    break  # one line a table: the unit is done anew for any of them

    def _check_layer(self, key: Output, commit: Commit) -> None:
        table, path = self._tables.get((*key, "layer")), commit.objects["layer"].path
        if table is None:
            return
        clips = next(((o, mark) for o, mark in commit.reads.items() if o.startswith("clips/")), ("", ""))
        rows = self._tables.get((*clips, "clips"))
        if rows is not None and table.num_rows != rows.num_rows:
            self._fault("layer_misaligned", path, f"{table.num_rows} rows for {rows.num_rows} clips", key)
        elif rows is not None and table["clip_id"] != rows["clip_id"]:
            self._fault("layer_misaligned", path, "its rows are not the clips in their order", key)
        elif strange := set(table["status"].unique().to_pylist()) - set(STATUSES):
            self._fault("layer_status", path, f"status {sorted(strange)}; it is one of {', '.join(STATUSES)}", key)

    def _fault(self, code: str, path: str, what: str, *broken: Output) -> None:
        breaks: list[Key] = [(output, mark, self.unit) for output, mark in broken]
        self.faults.append(Fault(code, path, what, tuple(breaks)))


def _row_fault(row: Mapping[str, Any], recordings: Mapping[bytes, Mapping[str, Any]]) -> tuple[str, str]:
    """(code, what) of a row of spans, failures or clips that does not fit its recording; empty where it fits."""
    recording = recordings.get(row["recording_id"])
    if recording is None:
        return "recording_unknown", f"recording {row['recording_id'].hex()} is not one of the unit's"
    if not 0 <= row["channel"] < recording["num_channels"]:
        return "span_outside", f"channel {row['channel']} of a recording of {recording['num_channels']}"
    if "start_sample" in row:
        start, end, rate = row["start_sample"], row["end_sample"], row["sample_rate_hz"]
        if rate != recording["sample_rate_hz"] or not 0 <= start < end <= recording["num_samples"]:
            there = f"{recording['num_samples']} samples at {recording['sample_rate_hz']} Hz"
            return "span_outside", f"[{start}, {end}) at {rate} Hz of a recording of {there}"
    return "", ""
