"""Who owns what: when several units hold the same input or recording, which of them counts.

An input belongs to the last unit that took it (`--retry-quarantined` takes it again). A recording belongs to the first
unit that holds it through an input of its own; in the others it is shadowed.

*Holdings* are the rows that decide this, (unit, input, recording), written once for each unit and named by the snapshot:
a publication reads the inputs of the units that are new to it, and of the corpus before it this index alone. That is
about 40 bytes an input in a few large objects, against two small reads a unit: at 200,000 units, hours on S3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from manifests.ids import new_attempt_id
from manifests.schema import ID, required
from manifests.schema import field as column
from manifests.snapshots import INGEST
from manifests.store import Store
from manifests.tables import TableFile, UnitTables, open_part

HOLDINGS = pa.schema(
    [
        required("unit", pa.string(), "unit that took the input"),
        required("input_id", ID, "the input"),
        column("recording_id", ID, "the recording its bytes became; null when refused"),
    ]
)
FOLDER = "holdings"
MAX_OBJECTS = 16  # as many small ones are merged into one
ROWS_AT_ONCE = 1 << 20


@dataclass
class Ownership:
    """What does not count, by unit: recordings that another unit owns, inputs that a later unit took again."""

    shadowed: dict[str, set[str]] = field(default_factory=dict)  # hex
    superseded: dict[str, set[str]] = field(default_factory=dict)  # hex


def held_by(tables: UnitTables, ingest: str, units: Iterable[str]) -> pa.Table:
    """HOLDINGS of some units, from their inputs."""
    read = (holding(unit, tables.read(INGEST, ingest, unit, "inputs", ["input_id", "recording_id"])) for unit in units)
    return pa.concat_tables([HOLDINGS.empty_table(), *read])


def holding(unit: str, inputs: pa.Table) -> pa.Table:
    """HOLDINGS of one unit from the columns ``input_id`` and ``recording_id`` of its inputs."""
    return pa.table([pa.repeat(unit, inputs.num_rows), *inputs.columns], schema=HOLDINGS)


def settle(known: Ownership, store: Store, objects: Sequence[str], fresh: pa.Table) -> Ownership:
    """``known``, which holds for the units in ``objects``, brought to hold for the ``fresh`` rows as well."""
    found = Ownership({u: set(ids) for u, ids in known.shadowed.items()}, {u: set(ids) for u, ids in known.superseded.items()})
    rows = pa.concat_tables([fresh, *_matching(store, objects, "input_id", fresh["input_id"])])
    again = rows.filter(pc.is_in(rows["input_id"], value_set=_repeated(rows["input_id"])))
    for identity, units in _units_by(again, "input_id").items():
        _move(found.superseded, identity.hex(), units[:-1], units)
    moved = pa.chunked_array([*fresh["recording_id"].chunks, *again["recording_id"].chunks], ID)
    rows = pa.concat_tables([fresh, *_matching(store, objects, "recording_id", moved)])
    touched = pa.chunked_array([_repeated(rows["recording_id"]), *again["recording_id"].chunks], ID).drop_null().unique()
    rows = rows.filter(pc.is_in(rows["recording_id"], value_set=touched))
    live = [row["input_id"].hex() not in found.superseded.get(row["unit"], ()) for row in rows.to_pylist()]
    owners = {
        identity: units[0] for identity, units in _units_by(rows.filter(pa.array(live, pa.bool_())), "recording_id").items()
    }
    for identity, units in _units_by(rows, "recording_id").items():
        _move(found.shadowed, identity.hex(), [unit for unit in units if unit != owners.get(identity)], units)
    return found


def write_holdings(store: Store, objects: Sequence[str], fresh: pa.Table) -> list[str]:
    """Paths of the holdings with the ``fresh`` rows: one object more, or all merged into one."""
    merged = len(objects) >= MAX_OBJECTS
    file = TableFile(HOLDINGS)
    for part in (*(_row_groups(store, objects) if merged else ()), fresh):
        for start in range(0, part.num_rows, ROWS_AT_ONCE):
            file.append(part.slice(start, ROWS_AT_ONCE))
    made = file.put(store, f"{FOLDER}/{new_attempt_id()}.parquet").path
    return [made] if merged else [*objects, made]


def read_holdings(store: Store, objects: Sequence[str]) -> pa.Table:
    """All rows of the holdings."""
    return pa.concat_tables([HOLDINGS.empty_table(), *_row_groups(store, objects)])


def _row_groups(store: Store, objects: Sequence[str]) -> Iterator[pa.Table]:
    for path in objects:
        with open_part(store, path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, use_threads=False)


def _matching(store: Store, objects: Sequence[str], name: str, values: pa.Array | pa.ChunkedArray) -> list[pa.Table]:
    """Rows of the holdings whose ``name`` is one of ``values``; nulls match nothing."""
    wanted = values.drop_null().unique()
    return [rows.filter(pc.is_in(rows[name], value_set=wanted)) for rows in _row_groups(store, objects)] if len(wanted) else []


def _repeated(values: pa.ChunkedArray) -> pa.Array:
    """The values that occur more than once; null is none of them."""
    counts = values.drop_null().value_counts()
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def _units_by(rows: pa.Table, name: str) -> dict[bytes, list[str]]:
    """Value -> units that hold it, each once, in plan order."""
    found: dict[bytes, set[str]] = {}
    for row in rows.select(["unit", name]).to_pylist():
        found.setdefault(row[name], set()).add(row["unit"])
    return {value: sorted(units) for value, units in found.items()}


def _move(hidden: dict[str, set[str]], identity: str, where: Iterable[str], units: Iterable[str]) -> None:
    """Among ``units``, ``identity`` is hidden in those of ``where`` and in no other."""
    for unit in units:
        hidden.get(unit, set()).discard(identity)
    for unit in where:
        hidden.setdefault(unit, set()).add(identity)
