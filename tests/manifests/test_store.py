from __future__ import annotations

import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest

from manifests.errors import RequestError, WorkError
from manifests.store import Store, place_of, table_bytes


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_the_second_creation_is_refused_and_changes_nothing(store: Store) -> None:
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"
    assert store.objects("") == ["commits/a.json"]


def test_creators_that_race_have_one_winner(tmp_path: Path) -> None:
    store, num_racers = Store(str(tmp_path)), 4
    with ThreadPoolExecutor(num_racers) as pool:
        for round_ in range(25):
            gate = Barrier(num_racers)

            def race(racer: int, path: str = f"c/{round_}.json", gate: Barrier = gate) -> bool:
                gate.wait()
                return store.create(path, f"{racer}".encode())

            won = list(pool.map(race, range(num_racers)))
            assert sum(won) == 1
            assert store.read(f"c/{round_}.json") == f"{won.index(True)}".encode()
    assert list(tmp_path.rglob("*.draft")) == []


def test_objects_are_read_whole_and_by_range(store: Store) -> None:
    store.write("a/b.bin", b"0123456789")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read("a/b.bin", 3, 4) == b"3456"
    assert store.read("a/b.bin", 8) == b"89"
    assert store.size("a/b.bin") == 10
    with pytest.raises(FileNotFoundError):
        store.read("a/none.bin")


def test_listing_is_sorted_and_relative(store: Store) -> None:
    for path in ("x/2.json", "x/1.json", "x/sub/3.json", "y/4.json"):
        store.write(path, b"")
    assert store.objects("x") == ["x/1.json", "x/2.json", "x/sub/3.json"]
    assert store.objects("none") == []


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("commits/a.json", b"1")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):  # past the longest path that the system takes
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    for listing in (store.objects, store.details):
        with pytest.raises(OSError, match="File name too long"):
            listing("")
        assert list(listing("commits")) == ["commits/a.json"]


def test_links_are_followed_and_none_leads_round(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "corpus"))
    Store(str(tmp_path / "large")).write("a.tar", b"1")
    store.write("corpus.json", b"{}")
    (tmp_path / "corpus" / "audio").symlink_to(tmp_path / "large")
    (tmp_path / "large" / "back").symlink_to(tmp_path / "corpus")
    assert store.objects("") == [*store.details()] == ["audio/a.tar", "corpus.json"]


def test_a_name_with_signs_of_a_pattern_is_a_name(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "corpus [1] *"))
    store.write("a", b"1")
    assert list(store.read_all(["a", "absent"])) == [("a", b"1")]
    assert store.objects("") == ["a"]


def test_what_is_written_is_on_disk_with_all_folders_that_lead_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def told(descriptor: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", told)
    Store(str(tmp_path)).write("a/b/c", b"1")
    assert synced == [".", "a", "a/b/c", "a/b"]


def test_removing_twice_is_no_fault(store: Store) -> None:
    store.write("a", b"")
    store.remove("a")
    store.remove("a")
    assert not store.exists("a")


def test_a_store_that_honours_the_condition_passes_and_keeps_nothing(store: Store) -> None:
    store.check_exclusive()
    assert store.objects("") == []


def test_stores_travel_between_processes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_an_unknown_protocol_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="nosuch://x"):
        Store("nosuch://x")


def test_an_unwritable_place_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="cannot be written"):
        Store(str(tmp_path / "file" / "below")).check_exclusive()


def test_a_full_disk_is_told_and_not_tried_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "layer").symlink_to("/dev/full")
    with pytest.raises(WorkError, match=r"is full \(No space left on device, writing 'layer'\); make room"):
        store.write("layer", b"x")
    assert store.objects("") == []  # no part of an object stays


def test_equal_tables_are_equal_bytes(store: Store) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert table_bytes(table) == table_bytes(pa.table({"a": [1, 2], "b": ["x", None]}))
    store.write("t.parquet", table_bytes(table))
    assert store.read_table("t.parquet") == table
    assert store.read_table("t.parquet", columns=["b"]).column_names == ["b"]


@pytest.mark.parametrize(
    ("uri", "folder", "name"),
    [
        ("/a.csv", "/", "a.csv"),
        ("a.csv", ".", "a.csv"),
        ("some/a.csv", "some", "a.csv"),
        ("memory://bucket/f/a.csv", "memory://bucket/f", "a.csv"),
    ],
)
def test_an_object_is_in_a_folder(uri, folder, name):
    store, found = place_of(uri)
    assert (store.uri, found) == (folder, name)
