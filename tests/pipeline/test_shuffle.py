"""The shuffle: shards follow from the documents alone, however they are cut, spilled, interrupted or raced for."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import RequestError, StoreError, WorkError
from manifests.ids import digest_bytes
from manifests.packs import FORMAT_VERSION, Pack
from manifests.store import Store
from manifests.tars import read_index
from pipeline.pack import write_pack
from pipeline.recipe import PackRecipe
from pipeline.shards import tarred, write_shard
from pipeline.shuffle import cut_points
from pipeline.spills import Decision, SpillTask, spill

RECIPE = PackRecipe(name="t", seed=3, splits={"train": 0.7, "test": 0.3}, shard_bytes=8_000)
HEAD = {"format_version": FORMAT_VERSION, "pack_id": "cafe" * 8, "sample_rate_hz": 16_000, "splits": ["train", "test"]}


@dataclass(frozen=True)
class Numbers:
    """Documents ``[start, stop)``; every fifth is dropped; stops with an error before document ``broken``."""

    start: int
    stop: int
    broken: int = -1

    @property
    def name(self) -> str:
        return f"{self.start:06d}"

    def decisions(self, skip: int) -> Iterator[Decision]:
        for number in range(self.start + skip, self.stop):
            if number == self.broken:
                raise OSError("the machine went away")
            if number % 5 == 0:
                yield Decision((), "train", "fifth", number, 8_000)
                continue
            key = digest_bytes(str(number).encode()).hex()
            turn = {"text": f"№ {number}", "recording_id": bytes.fromhex(key), "clips": []}
            row = {"key": key, "kind": "text", "tasks": ["text"], "turns": [turn]}
            document = tarred(row, {"json": b"{}", "0.flac": bytes(number * 37 % 2000)})
            yield Decision((document,), RECIPE.split_of(key), None, number, 16_000)


def made(out: str, edges: list[int], spill_bytes: int = 1 << 30, broken: int = -1) -> dict[str, bytes]:
    """Everything that a pack of the documents between the edges consists of."""
    parts = [Numbers(start, stop, broken) for start, stop in itertools.pairwise(edges)]
    write_pack(out, HEAD, dict, lambda _: parts, RECIPE, has_funnel=True, spill_bytes=spill_bytes)
    store = Store(out)
    return {path: store.read(path) for path in store.objects("")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """80 rows packed at once."""
    return made(str(tmp_path_factory.mktemp("whole")), [0, 80])


@settings(max_examples=5)
@given(
    cuts=st.lists(st.integers(0, 80), max_size=3),
    spill_bytes=st.sampled_from([4_000, 20_000, 1 << 30]),
    broken=st.integers(0, 79),
)
def test_neither_cutting_nor_interruption_shows(whole, cuts: list[int], spill_bytes: int, broken: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        edges = sorted({0, 80, *cuts})
        with pytest.raises(WorkError, match="the machine went away"):
            made(out, edges, spill_bytes, broken)
        assert not Store(out).exists("pack.json")
        assert made(out, edges, spill_bytes) == whole


def test_other_spills_of_an_interrupted_run_are_taken_over(whole, tmp_path) -> None:
    with pytest.raises(WorkError, match="the machine went away"):
        made(str(tmp_path), [0, 80], 5_000, broken=50)
    assert made(str(tmp_path), [0, 80], 9_000) == whole


def test_a_finished_shard_is_not_made_again(whole, tmp_path, monkeypatch) -> None:
    kept = write_shard

    def dies_at_the_third(store, name, documents):
        if name == "train-000002.tar":
            raise OSError("the machine went away")
        return kept(store, name, documents)

    monkeypatch.setattr("pipeline.shuffle.write_shard", dies_at_the_third)
    with pytest.raises(WorkError, match="the machine went away"):
        made(str(tmp_path), [0, 80])
    names = []
    monkeypatch.setattr("pipeline.shuffle.write_shard", lambda store, name, docs: names.append(name) or kept(store, name, docs))
    assert made(str(tmp_path), [0, 80]) == whole
    assert names[0] == "train-000002.tar"


def test_documents_stand_in_the_order_of_their_places(whole, tmp_path) -> None:
    made(str(tmp_path), [0, 80])
    pack = Pack.open(str(tmp_path))
    seen = []
    for split in pack.splits:
        rows = pack.documents(split).to_pylist()
        places = [digest_bytes(f"{RECIPE.seed}:{row['key']}".encode()) for row in rows]
        assert places == sorted(places)
        assert all(row["turns"][0]["recording_id"].hex() == row["key"] and RECIPE.split_of(row["key"]) == split for row in rows)
        for row in rows:
            member = next(m for m in read_index(pack.store, f"shards/{row['shard']}") if m.name == f"{row['key']}.json")
            assert (row["offset"], row["num_bytes"] % 512) == (member.offset - 512, 0)
        seen += [int(row["turns"][0]["text"].removeprefix("№ ")) for row in rows]
    assert sorted(seen) == [number for number in range(80) if number % 5]


def test_shards_hold_what_they_should(whole) -> None:
    manifest = [json.loads(whole["pack.json"])["counts"][split]["num_documents"] for split in ("train", "test")]
    assert sum(manifest) == 64
    for split in ("train", "test"):
        sizes = [
            len(data) for path, data in sorted(whole.items()) if path.startswith(f"shards/{split}-") and path.endswith(".tar")
        ]
        # A document has at most 3,072 bytes; tars end on a multiple of 10,240.
        assert all(size == 20_480 or size == 10_240 for size in sizes)


def test_the_funnel_counts_every_row_once(whole) -> None:
    funnel = {(row["step"], row["reason"]): row for row in json.loads(whole["pack.json"])["funnel"]}
    fifths, others = range(0, 80, 5), [number for number in range(80) if number % 5]
    assert {key: row["num"] for key, row in funnel.items()} == {
        ("clips", None): 80,
        ("dropped", "fifth"): 16,
        ("packed", None): 64,
    }
    assert funnel["dropped", "fifth"]["hours"] == pytest.approx(sum(fifths) / 8_000 / 3600)
    assert funnel["packed", None]["hours"] == pytest.approx(sum(others) / 16_000 / 3600)
    assert funnel["clips", None]["hours"] == pytest.approx((sum(fifths) / 8_000 + sum(others) / 16_000) / 3600)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 120))
def test_every_shard_but_the_last_is_full_and_none_could_end_sooner(sizes: list[int], shard_bytes: int) -> None:
    cuts = cut_points(np.array(sizes, np.int64), shard_bytes)
    shards = [sizes[start:stop] for start, stop in itertools.pairwise(cuts)]
    assert sum(map(sum, shards)) == sum(sizes)
    assert all(sum(shard) >= shard_bytes > sum(shard[:-1]) for shard in shards[:-1])
    assert all(sum(shard) > 0 for shard in shards)


def test_another_run_that_spills_the_same_part_is_joined(tmp_path) -> None:
    """Its spills end at other rows than ours would: we go on behind them."""
    work, names = Store(str(tmp_path)), ("train", "test")
    other = SpillTask(work.uri, "p", Numbers(0, 50, broken=30), 3, names, 4_000)
    with pytest.raises(OSError, match="the machine went away"):
        spill(other)
    spilled = spill(SpillTask(work.uri, "p", Numbers(0, 50), 3, names, 7_000))
    assert spilled.num_rows == {("fifth", 8_000): 10, (None, 16_000): 40}
    assert spill(SpillTask(work.uri, "p", Numbers(0, 50, broken=0), 3, names)) == spilled  # all there: nothing is read again


def test_a_run_that_comes_second_to_the_end_says_so(whole, tmp_path, capsys, monkeypatch) -> None:
    """The first one has finished and cleared away while the second was about to write its shards."""
    out = str(tmp_path)

    def others_win(*arguments):
        monkeypatch.undo()
        made(out, [0, 80])
        raise StoreError("spill '000000.000000' is gone")

    monkeypatch.setattr("pipeline.pack.cut_shards", others_win)
    assert made(out, [0, 80]) == whole
    assert "another run finished the same pack" in capsys.readouterr().err


def test_a_run_that_finds_the_others_end_at_its_own_beginning_says_so(whole, tmp_path, monkeypatch) -> None:
    out = str(tmp_path)
    made(out, [0, 80])
    monkeypatch.setattr("pipeline.pack._standing", lambda store, pack_id: None)  # it looked before the end
    with pytest.raises(WorkError, match="another run finished a pack at"):
        made(out, [0, 80])
    monkeypatch.undo()
    assert made(out, [0, 80]) == whole


def test_what_else_wrote_a_shard_is_not_taken_for_ours(tmp_path) -> None:
    out = str(tmp_path)
    with pytest.raises(WorkError, match="the machine went away"):
        made(out, [0, 80], broken=60)
    Store(out).write("shards/train-000000.tar", b"something else")
    with pytest.raises(WorkError, match=r"'shards/train-000000\.tar' .* was written by something else"):
        made(out, [0, 80])
    Store(out).remove("shards/train-000000.tar")
    Store(out).write("manifest/train.parquet", b"something else")
    with pytest.raises(WorkError, match=r"'manifest/train\.parquet' .* was written by something else"):
        made(out, [0, 80])


def test_a_spill_that_lost_its_end_is_told(tmp_path) -> None:
    out = str(tmp_path)
    with pytest.raises(WorkError, match="the machine went away"):
        made(out, [0, 60, 80], broken=79)
    work = Store(f"{out}/packing")
    (path,) = (path for path in work.objects("spills") if path.endswith(".documents"))
    work.write(path, work.read(path)[:-1000])
    with pytest.raises(WorkError, match="ends at"):
        made(out, [0, 60, 80])


def test_equal_packs_on_an_object_store(whole, s3) -> None:
    out = f"{s3.bucket()}/pack"
    with pytest.raises(WorkError, match="the machine went away"):
        made(out, [0, 35, 80], 20_000, broken=60)
    assert made(out, [0, 35, 80], 20_000) == whole
    assert not Store(out).objects("packing")
    with pytest.raises(RequestError, match="holds another pack"):
        write_pack(out, {**HEAD, "pack_id": "other"}, dict, lambda _: [], RECIPE)
