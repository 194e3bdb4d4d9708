"""The store's promises on a real S3 server, and what a person reads where there is none."""

from __future__ import annotations

import pickle
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest

from manifests.errors import RequestError, StoreError
from manifests.snapshots import read_head
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


def test_stores_travel_and_see_what_another_wrote_since_they_listed(store):
    other = pickle.loads(pickle.dumps(store))
    store.write("a/1", b"1")
    assert other.objects("a") == ["a/1"]
    store.write("a/2", b"2")
    assert other.exists("a/2")
    assert other.read("a/2") == b"2"


def test_a_store_that_ignores_the_condition_is_refused(s3, s3_at, serve):
    uri = s3.bucket()

    def forgetful(environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return s3.application(environ, start_response)

    s3_at(serve(forgetful))
    store = Store(f"{uri}/corpus")
    with pytest.raises(StoreError, match="ignores create-only-if-absent"):
        store.check_exclusive()
    assert store.objects("") == []


@pytest.mark.parametrize("is_file", [False, True])
def test_a_creation_whose_answer_is_lost_is_still_won(s3, s3_at, serve, tmp_path, is_file):
    uri, lost = s3.bucket(), []

    def answers_lost(environ, start_response):
        answer = s3.application(environ, start_response if lost or environ["REQUEST_METHOD"] != "PUT" else lambda *_: None)
        if not lost and environ["REQUEST_METHOD"] == "PUT":
            lost.append(list(answer))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return answer

    s3_at(serve(answers_lost))
    store = Store(f"{uri}/corpus")

    def create(data):
        (tmp_path / "file").write_bytes(data)
        return store.create_file("commits/a.json", str(tmp_path / "file")) if is_file else store.create("commits/a.json", data)

    assert create(b"ours")
    assert lost
    assert not create(b"them")
    assert not create(b"theirs")
    assert store.read("commits/a.json") == b"ours"


@pytest.mark.slow  # the client's own patience
def test_faults_that_may_pass_are_os_errors_and_neither_absence_nor_refusal(s3_at, serve):
    def failing(_, start_response):
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]

    s3_at(serve(failing))
    store = Store("s3://b/corpus")
    for use in (store.read, store.exists, store.objects):
        with pytest.raises(OSError, match=r"Internal|500") as fault:
            use("a")
        assert not isinstance(fault.value, FileNotFoundError | PermissionError)


@pytest.mark.slow  # the client's own patience
def test_a_missing_bucket_and_an_unreachable_endpoint_are_wrong_requests_told_soon(s3, s3_at):
    with pytest.raises(RequestError, match=r"cannot be written.*bucket does not exist"):
        Store("s3://no-such-bucket/corpus").check_exclusive()
    assert not Store("s3://no-such-bucket/corpus").exists()
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        s3_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(RequestError, match=r"'s3://b/corpus' cannot be reached .*Could not connect"):
            read_head(Store("s3://b/corpus"))
        with pytest.raises(RequestError, match=r"cannot be written.*Could not connect"):
            Store("s3://b/corpus").check_exclusive()
        assert time.monotonic() - began < 60


def test_missing_credentials_are_named(s3, s3_at, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3_at("http://127.0.0.1:1")
    with pytest.raises(RequestError, match="set AWS_ACCESS_KEY_ID"):
        read_head(Store("s3://b/corpus"))
