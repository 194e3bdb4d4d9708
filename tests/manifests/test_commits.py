from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from manifests.commits import Attempt, list_commits, read_commit
from manifests.ids import digest_bytes
from manifests.store import Store

OUTPUT, FINGERPRINT = "layers/turns/asr", "f0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def attempt(store: Store, unit: str = "u0") -> Attempt:
    made = Attempt(store, OUTPUT, FINGERPRINT, unit, {"clips/turns": "c0"})
    made.put_table("layer", "layers", pa.table({"a": [1, 2]}))
    return made


def test_a_commit_says_what_was_written(store: Store) -> None:
    assert attempt(store).commit()
    commit = read_commit(store, OUTPUT, FINGERPRINT, "u0")
    assert commit is not None
    fact = commit.objects["layer"]
    data = store.read(fact.path)
    assert (fact.num_bytes, fact.digest, fact.num_rows) == (len(data), digest_bytes(data).hex(), 2)
    assert commit.reads == {"clips/turns": "c0"}


def test_who_comes_second_removes_its_own_objects_and_nothing_else(store: Store) -> None:
    first, second = attempt(store), attempt(store)
    second.put("audio", "audio", ".tar", b"x")
    assert first.commit()
    kept = store.objects("layers")
    assert not second.commit()
    assert store.objects("layers") == [path for path in kept if first.attempt in path]
    assert store.objects("audio") == []
    assert len(store.objects("layers")) == 1


def test_what_is_not_committed_is_not_read(store: Store) -> None:
    made = attempt(store)
    assert read_commit(store, OUTPUT, FINGERPRINT, "u0") is None
    assert list_commits(store) == {}
    made.discard()
    assert store.objects("") == []


def test_commits_are_listed_by_output_and_fingerprint(store: Store) -> None:
    for unit in ("u1", "u0"):
        assert attempt(store, unit).commit()
    Attempt(store, "ingest", "f1", "u0").commit()
    assert list_commits(store) == {(OUTPUT, FINGERPRINT): ["u0", "u1"], ("ingest", "f1"): ["u0"]}


def test_an_attempt_whose_objects_were_collected_commits_nothing(store: Store) -> None:
    attempt = Attempt(store, "ingest", "f", "000000-aa")
    collected, kept = (attempt.put(role, role, ".parquet", b"rows") for role in ("inputs", "recordings"))
    store.remove(collected)
    with pytest.raises(FileNotFoundError, match="was collected before unit 000000-aa"):
        attempt.commit()
    assert read_commit(store, "ingest", "f", "000000-aa") is None
    assert not store.exists(kept)


def test_an_interruption_after_the_link_leaves_the_published_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit names must outlive whatever ends the call that made it: a signal, a lost answer of the store."""
    store = Store(str(tmp_path))
    create = store.create

    def create_then_break(path: str, data: bytes) -> bool:
        create(path, data)
        raise KeyboardInterrupt

    attempt = Attempt(store, "ingest", "f", "u")
    path = attempt.put("audio", "audio", ".tar", b"data")
    monkeypatch.setattr(store, "create", create_then_break)
    with pytest.raises(KeyboardInterrupt):
        attempt.commit()
    found = read_commit(store, "ingest", "f", "u")
    assert found is not None
    assert store.read(found.objects["audio"].path) == b"data"
    assert found.objects["audio"].path == path


def test_an_answer_that_was_lost_and_asked_again_is_still_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's client that repeats a conditional write whose answer it never saw is told that the object exists."""
    store = Store(str(tmp_path))
    create = store.create
    monkeypatch.setattr(store, "create", lambda path, data: create(path, data) and create(path, data))
    attempt = Attempt(store, "ingest", "f", "u")
    path = attempt.put("audio", "audio", ".tar", b"data")
    assert attempt.commit()
    assert store.read(path) == b"data"
