"""The store's promises on a real S3 server, and what a person reads where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest

from manifests.store import Store, table_bytes


@pytest.fixture
def store(s3) -> Store:
    return Store(f"{s3.bucket()}/corpus")


def test_the_second_creation_is_refused_and_changes_nothing(store):
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"
    assert store.objects("") == ["commits/a.json"]


def test_creators_that_race_have_one_winner(store):
    num_racers = 4
    with ThreadPoolExecutor(num_racers) as pool:
        for round_ in range(5):
            gate = Barrier(num_racers)

            def race(racer: int, path: str = f"c/{round_}.json", gate: Barrier = gate) -> bool:
                gate.wait()
                return Store(store.uri).create(path, f"{racer}".encode())

            won = list(pool.map(race, range(num_racers)))
            assert sum(won) == 1
            assert store.read(f"c/{round_}.json") == f"{won.index(True)}".encode()


def test_objects_are_read_whole_by_range_and_as_tables(store):
    store.write("a/b.bin", b"0123456789")
    assert (store.read("a/b.bin"), store.read("a/b.bin", 3, 4), store.read("a/b.bin", 8)) == (b"0123456789", b"3456", b"89")
    assert store.size("a/b.bin") == 10
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    store.write("t.parquet", table_bytes(table))
    assert store.read_table("t.parquet") == table
    with pytest.raises(FileNotFoundError):
        store.read("a/none.bin")
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert store.objects("") == ["t.parquet"]


def test_a_store_that_honours_the_condition_passes_and_keeps_nothing(store):
    store.check_exclusive()
    assert store.objects("") == []
