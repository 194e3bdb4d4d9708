"""Who owns what: an input belongs to the last unit that took it, a recording to the first that holds it through one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from manifests.store import Store
from pipeline.holdings import HOLDINGS, MAX_OBJECTS, Ownership, settle, write_holdings

Rows = dict[str, dict[int, int | None]]  # unit -> input -> recording
NAMES = [f"u{n}" for n in range(6)]
UNITS = st.dictionaries(st.sampled_from(NAMES), st.dictionaries(st.integers(0, 4), st.none() | st.integers(0, 3)), min_size=1)


def identity(number: int) -> bytes:
    return bytes([number]) * 16


def holdings(units: Rows) -> pa.Table:
    rows = [
        {"unit": unit, "input_id": identity(i), "recording_id": None if r is None else identity(r)}
        for unit, held in units.items()
        for i, r in held.items()
    ]
    return pa.Table.from_pylist(rows, schema=HOLDINGS)


def expected(units: Rows) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """The rule, said at full length."""
    last = {i: max(u for u, held in units.items() if i in held) for held in units.values() for i in held}
    superseded = {u: {identity(i).hex() for i in held if last[i] != u} for u, held in units.items()}
    shadowed: dict[str, set[str]] = {u: set() for u in units}
    for recording in {r for held in units.values() for r in held.values() if r is not None}:
        holders = sorted(u for u, held in units.items() if recording in held.values())
        live = [u for u in holders if any(r == recording and last[i] == u for i, r in units[u].items())]
        for unit in holders:
            if unit not in live[:1]:
                shadowed[unit].add(identity(recording).hex())
    return shadowed, superseded


@given(units=UNITS, order=st.permutations(NAMES), sizes=st.lists(st.integers(1, 3), min_size=6, max_size=6))
def test_units_that_come_in_any_order_and_grouping_end_in_the_same_owners(
    units: Rows, order: list[str], sizes: list[int]
) -> None:
    arriving = [unit for unit in order if unit in units]
    known, objects = Ownership(), list[str]()
    with TemporaryDirectory() as folder:
        store = Store(folder)
        for size in sizes:
            some, arriving = arriving[:size], arriving[size:]
            fresh = holdings({unit: units[unit] for unit in some})
            known, objects = settle(known, store, objects, fresh), write_holdings(store, objects, fresh)
    shadowed, superseded = expected(units)
    assert {u: known.shadowed.get(u, set()) for u in units} == shadowed
    assert {u: known.superseded.get(u, set()) for u in units} == superseded


def test_many_small_holdings_become_one(tmp_path: Path) -> None:
    store, objects = Store(str(tmp_path)), list[str]()
    for n in range(MAX_OBJECTS + 1):
        objects = write_holdings(store, objects, holdings({f"u{n}": {n: n}}))
    assert len(objects) == 1
    table = store.read_table(objects[0])
    assert table.num_rows == MAX_OBJECTS + 1
    assert table["unit"].to_pylist() == [f"u{n}" for n in range(MAX_OBJECTS + 1)]
