"""Snapshots: numbers that one publisher wins, and a form that stays small."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from manifests.snapshots import Snapshot, latest_snapshot_number, position_spans, publish_snapshot, read_snapshot
from manifests.store import Store, json_bytes


def test_one_of_two_publishers_of_a_number_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert latest_snapshot_number(store) == -1
    first, second = Snapshot(0, ["u0"], {}, {}, "turns"), Snapshot(0, ["u1"], {}, {}, "turns")
    assert publish_snapshot(store, first)
    assert not publish_snapshot(store, second)
    assert read_snapshot(store, 0) == first
    assert publish_snapshot(store, Snapshot(1, ["u1"], {}, {}, "turns"))
    assert latest_snapshot_number(store) == 1


def test_a_number_that_was_published_and_removed_stays_taken(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in (0, 1, 2):
        assert publish_snapshot(store, Snapshot(number, ["u0"], {}, {}, "turns"))
    store.remove(Snapshot.path(1))
    assert not publish_snapshot(store, Snapshot(1, ["u0", "u1"], {}, {}, "turns"))
    assert not store.exists(Snapshot.path(1))


@given(st.sets(st.integers(0, 40)))
def test_positions_come_back_from_their_spans(positions: set[int]) -> None:
    spans = position_spans(sorted(positions))
    assert [p for start, stop in spans for p in range(start, stop)] == sorted(positions)
    assert all(left[1] < right[0] for left, right in pairwise(spans))


@given(st.lists(st.sets(st.integers(0, 9)), max_size=3))
def test_a_snapshot_comes_back_from_its_json(done: list[set[int]]) -> None:
    units = [f"{n:06d}-00000000" for n in range(10)]
    outputs = {f"o{n}": {"f": [units[i] for i in sorted(held)]} for n, held in enumerate(done)}
    made = Snapshot(3, units, outputs, {"o0": "f"}, "turns", {units[1]: ["ab"]}, {units[2]: ["cd"]}, {"o0": {"f": "p"}}, ["h"])
    assert Snapshot.from_json(made.to_json()) == made


def test_whole_outputs_take_no_room_in_a_snapshot() -> None:
    units = [f"{n:06d}-00000000" for n in range(1000)]
    small = Snapshot(0, units, {}, {}, "turns")
    large = Snapshot(0, units, {f"o{n}": {"f": units} for n in range(10)}, {}, "turns")
    assert len(json_bytes(large.to_json())) - len(json_bytes(small.to_json())) < 300
