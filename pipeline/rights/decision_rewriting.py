"""A decision table without what was taken down: rows of its clips go, and whoever nobody hears any more.

A table stays what it is otherwise. Sums over clips that are gone (how many a person has, its mean vector) are those of the
day it was made: who wants them counted anew makes the table anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.compute as pc

from manifests.commits import ObjectFact
from manifests.compacted import CompactedPart
from manifests.decision_tables import DecisionTable, read_decision_table
from manifests.ids import new_attempt_id
from manifests.schema import ID
from manifests.store import Store, json_bytes
from manifests.tables import TableFile, open_part
from manifests.tombstones import KEYS, WHOLE_KEYS, Tombstones


def rewrite_head(store: Store, path: str, successors: Mapping[str, str], tombstones: Tombstones) -> str:
    """Path of the table's head in which ``successors`` (old unit -> new) stand and nothing has a tombstone.

    The path as it is, where that changes nothing.
    """
    head = read_decision_table(store, path)
    parts = [_rewritten_part(store, head, part, successors, tombstones) for part in head.parts]
    made = replace(head, parts=parts)
    wholes = {role: _rewritten_whole(store, made, role, tombstones) for role in head.wholes}
    if parts == head.parts and wholes == head.wholes:
        return path
    taken = {recording.hex() for recording in tombstones.recordings}
    shadowed = {
        successors.get(unit, unit): left for unit, ids in head.shadowed.items() if (left := [r for r in ids if r not in taken])
    }
    made = replace(made, wholes=wholes, shadowed=shadowed)
    new_path = f"{head.folder}/{new_attempt_id()}.json"
    store.write(new_path, json_bytes(asdict(made)))
    return new_path


def without_tombstones(table: pa.Table, tombstones: Tombstones, keys: Mapping[str, str]) -> pa.Table:
    """The rows that are of nothing that was taken down; what others say of such a thing becomes null."""
    table = tombstones.without(table, keys)
    every = tombstones.id_array(*keys.values())
    for place, column in enumerate(table.schema):
        if column.type == ID and column.nullable:
            values = table[column.name]
            cleared = pc.if_else(pc.is_in(values, value_set=every), pa.scalar(None, ID), values)
            table = table.set_column(place, column, cleared)
    return table


def _rewritten_part(
    store: Store, head: DecisionTable, part: CompactedPart, successors: Mapping[str, str], tombstones: Tombstones
) -> CompactedPart:
    if not successors.keys() & set(part.units):
        return part
    row_groups, num_rows = [], []
    with open_part(store, part.path) as source:
        file = TableFile(source.schema_arrow)
        for number in part.row_groups:
            table = without_tombstones(source.read_row_group(number, use_threads=False), tombstones, KEYS)
            row_groups.append(file.append(table))
            num_rows.append(table.num_rows)
    units = [successors.get(unit, unit) for unit in part.units]
    fact = file.put(store, f"{head.folder}/{part.role}-{new_attempt_id()}.parquet")
    return CompactedPart(part.role, units[0], fact.path, fact.num_bytes, fact.digest, units, row_groups, num_rows)


def _rewritten_whole(store: Store, head: DecisionTable, role: str, tombstones: Tombstones) -> ObjectFact:
    """A table of the whole corpus; a row of a person stays as long as a clip of it is left, or of an alias."""
    fact = head.wholes[role]
    with open_part(store, fact.path) as source:
        schema, table = source.schema_arrow, source.read(use_threads=False)
    left = without_tombstones(table, tombstones, WHOLE_KEYS)
    if "speaker_id" in left.column_names:
        left = left.filter(pc.is_in(left["speaker_id"], value_set=_heard(store, head)))
    if left.num_rows == table.num_rows and left.equals(table):
        return fact
    file = TableFile(schema)
    file.append(left.cast(schema))
    return file.put(store, f"{head.folder}/{role}-{new_attempt_id()}.parquet")


def _heard(store: Store, head: DecisionTable) -> pa.Array:
    """Persons, by the ids that count now, of whom a unit has a clip."""
    given: set[bytes] = set()
    for part in head.parts:
        with open_part(store, part.path) as file:
            if "speaker_id" in file.schema_arrow.names:
                for number in part.row_groups:
                    given |= set(file.read_row_group(number, columns=["speaker_id"], use_threads=False)["speaker_id"].to_pylist())
    now = {}
    if "aliases" in head.wholes:
        rows = store.read_table(head.wholes["aliases"].path)
        now = dict(zip(rows["alias"].to_pylist(), rows["speaker_id"].to_pylist(), strict=True))
    return pa.array(sorted({now.get(speaker, speaker) for speaker in given - {None}}), ID)
