"""Compaction: not a row changes, whoever reads, builds, compacts or dies beside it; and what nobody needs goes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests.compacted import _read_compaction, read_compaction
from manifests.corpus import Corpus
from manifests.errors import WorkError
from manifests.snapshots import Snapshot, latest_snapshot_number, read_snapshot, table_roles
from manifests.store import ObjectDetail, Store
from pipeline.build import build
from pipeline.compact import compact, cut_groups
from pipeline.garbage import collect, kept_snapshots
from pipeline.shipped_speech import conversation_path

PART_BYTES = 25_000  # a handful of units each
UNITS = {"max_inputs": 1}
FOLDERS = ("inputs", "recordings", "quarantine", "spans", "failures", "clips", "layers")


@pytest.fixture(scope="module")
def snippets(tmp_path_factory):
    """A folder of 16 recordings of one or two seconds, two of them alike, and a file that is not audio."""
    folder = tmp_path_factory.mktemp("snippets")
    audio, rate = soundfile.read(conversation_path(), dtype="float32")
    for n in range(15):
        soundfile.write(folder / f"{n:02d}.wav", audio[n * rate : (n + 1 + n % 2) * rate], rate)
    shutil.copy(folder / "03.wav", folder / "15.wav")
    (folder / "16.wav").write_bytes(b"not audio at all")
    return folder


@pytest.fixture(scope="module")
def original(snippets, light, tmp_path_factory):
    """URI of a corpus of 17 units that nobody compacts; its rows are the truth."""
    out = str(tmp_path_factory.mktemp("original") / "corpus")
    build([str(snippets)], out, light(units=UNITS))
    return out


@pytest.fixture
def corpus(original, tmp_path):
    """A copy of it."""
    return shutil.copytree(original, str(tmp_path / "corpus"))


# A unit that fits into no group stays as it is: at most one of ingest, of spans, of a clip set.
LONE_TABLES = 9


def num_tables(uri: str) -> int:
    return sum(path.endswith(".parquet") for folder in FOLDERS for path in Store(uri).objects(folder))


def test_not_a_row_changes_and_the_small_tables_go(original, corpus, rows_of):
    done = compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    assert rows_of(corpus) == rows_of(original)
    assert num_tables(corpus) <= LONE_TABLES
    assert done.num_tables + num_tables(corpus) == num_tables(original)
    assert 20 < done.num_parts < done.num_tables / 2
    kept, first = Corpus.open(corpus), Corpus.open(original)
    for ours, theirs in zip(kept.views(), first.views(), strict=True):
        assert ours.clips() == theirs.clips()
        assert ours.layer("signal", ["status"]) == theirs.layer("signal", ["status"])
        assert ours.quarantine() == theirs.quarantine()


def test_parts_hold_one_row_group_a_unit_and_are_cut_at_the_same_units(corpus):
    compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    opened = Corpus.open(corpus)
    groups = {}
    for output, made in opened.snapshot.compacted.items():
        path, *others = made.values()
        assert not others
        for part in read_compaction(opened.store, path).parts:
            assert part.row_groups == list(range(len(part.units)))
            assert opened.store.size(part.path) == part.num_bytes
            groups.setdefault((output.split("/")[0], output, part.role), []).append(part.units)
    of_clip_sets = [units for (kind, *_), units in groups.items() if kind in ("clips", "layers")]
    assert len(of_clip_sets) == 4
    assert all(units == of_clip_sets[0] for units in of_clip_sets)
    assert len(of_clip_sets[0]) > 1
    for parts in groups.values():
        units = [unit for part in parts for unit in part]
        assert units == opened.snapshot.units[: len(units)]
        assert len(opened.snapshot.units) - len(units) < 2


def test_what_is_compact_is_left_alone(corpus):
    first = compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    before = Store(corpus).details()
    again = compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    assert (again.num_parts, again.snapshot, again.removed.num_objects) == (0, first.snapshot, 0)
    assert Store(corpus).details() == before


def test_new_units_join_the_last_group_and_no_other(corpus, snippets, light, tmp_path, rows_of):
    compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    before = set(Store(corpus).objects("compacted"))
    folder = shutil.copytree(snippets, tmp_path / "in")
    soundfile.write(folder / "17.wav", np.zeros(8000), 16_000)
    shutil.copy(folder / "02.wav", folder / "18.wav")
    build([str(snippets), str(folder / "17.wav"), str(folder / "18.wav")], corpus, light(units=UNITS))
    grown = rows_of(corpus)
    compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    assert rows_of(corpus) == grown
    parts = {path for path in before if path.endswith(".parquet")}
    assert len(parts - set(Store(corpus).objects("compacted"))) <= len(parts) / 2
    assert num_tables(corpus) <= LONE_TABLES


@pytest.mark.slow
def test_works_read_what_was_compacted(corpus, light, rows_of, tmp_path, snippets):
    """A layer is added when the tables that it reads are in parts alone, carried rows come from parts, refusals too."""
    compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    both = {**light().model_dump(mode="json")["annotators"], "again": {"kind": "prosody", "min_voiced_s": 0.3}}
    other_bounds = {"turns": None, "max_s": 20.0}
    for out in (corpus, str(tmp_path / "fresh")):
        build([str(snippets)], out, light(units=UNITS, annotators=both))
        build([str(snippets)], out, light(units=UNITS, clip_set=other_bounds))
        build([str(snippets)], out, light(units=UNITS, annotators=both), retry_quarantined=["not_audio"])
    assert rows_of(corpus) == rows_of(str(tmp_path / "fresh"))
    assert Corpus.open(corpus).quarantine().num_rows == 1
    assert len(Corpus.open(corpus).snapshot.superseded) == 1


def test_a_reader_goes_on_with_the_snapshot_that_it_opened(original, corpus, rows_of):
    reader = Corpus.open(corpus)
    views = reader.views()
    first = next(views).clips()
    compact(corpus, part_bytes=PART_BYTES, grace_s=3600)
    assert num_tables(corpus) == num_tables(original)
    assert reader.layer("signal") == Corpus.open(original).layer("signal")
    compact(corpus, part_bytes=2 * PART_BYTES, grace_s=0)  # and even when its objects are gone
    assert latest_snapshot_number(Store(corpus)) > 0
    assert [first, *(view.clips() for view in views)] == [view.clips() for view in Corpus.open(original).views()]
    assert reader.layer("prosody") == Corpus.open(original).layer("prosody")


def test_a_compaction_that_another_one_overtook_begins_again(corpus, original, rows_of, monkeypatch):
    compact(corpus, part_bytes=PART_BYTES, grace_s=3600)
    overtaken, read = Corpus.open(corpus), Corpus.open
    compact(corpus, part_bytes=2 * PART_BYTES, grace_s=0)
    _read_compaction.cache_clear()  # this process has read what is gone now
    opened = iter([overtaken])
    monkeypatch.setattr(Corpus, "open", lambda uri: next(opened, None) or read(uri))
    assert compact(corpus, part_bytes=2 * PART_BYTES, grace_s=0).num_parts == 0
    assert next(opened, None) is None
    assert rows_of(corpus) == rows_of(original)


def test_a_compaction_that_nobody_replaced_is_lost(corpus):
    compact(corpus, part_bytes=PART_BYTES, grace_s=3600)
    store = Store(corpus)
    store.remove(next(path for path in store.objects("compacted") if path.endswith(".json")))
    _read_compaction.cache_clear()
    with pytest.raises(WorkError, match="is gone; run `stepwell corpus fsck --repair`"):
        compact(corpus, part_bytes=PART_BYTES, grace_s=0)


def test_a_table_that_is_not_what_its_commit_says_is_not_passed_on(corpus):
    store = Store(corpus)
    path = store.objects("clips")[3]
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.write(path, bytes(data))
    before = store.objects("")
    with pytest.raises(WorkError, match="is not what its commit says; run `stepwell corpus fsck --repair`"):
        compact(corpus, part_bytes=PART_BYTES)
    assert store.objects("") == before


@pytest.mark.slow
def test_a_build_readers_and_two_compactions_at_once(snippets, light, tmp_path, original, rows_of):
    """Files come one by one while two threads compact without pause and a reader reads: rows are those of one build."""
    out, files = str(tmp_path / "corpus"), sorted(snippets.iterdir())
    build([str(files[0])], out, light(units=UNITS))
    is_built, faults, seen = threading.Event(), [], []

    def until_built(step):
        def loop():
            try:
                while not is_built.is_set():
                    step()
            except BaseException as error:
                faults.append(error)

        return threading.Thread(target=loop)

    def read():
        opened = Corpus.open(out)
        clips, layer = opened.clips(), opened.layer("style")
        assert clips["clip_id"] == layer["clip_id"]
        seen.append(clips.num_rows)

    # Five seconds of grace: nothing here holds an object so long before it commits, nor a reader a snapshot.
    compactor = lambda: compact(out, part_bytes=PART_BYTES, grace_s=5)  # noqa: E731
    threads = [until_built(step) for step in (compactor, compactor, read)]
    for thread in threads:
        thread.start()
    try:
        for count in range(2, len(files) + 1):
            build([str(path) for path in files[:count]], out, light(units=UNITS))
    finally:
        is_built.set()
        for thread in threads:
            thread.join()
    assert not faults, ["".join(traceback.format_exception(fault)) for fault in faults]
    assert len(seen) > 2
    assert seen == sorted(seen)
    compact(out, part_bytes=PART_BYTES, grace_s=0)
    assert rows_of(out) == rows_of(original)


COMPACT = "import sys; from pipeline.compact import compact; compact(sys.argv[1], part_bytes=int(sys.argv[2]), grace_s=0)"


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_and_the_rest_is_collected(original, corpus, rows_of):
    expected, chance = rows_of(original), random.Random(os.getpid())
    for kill in range(8):
        # Ever larger parts, so that each attempt has everything to do again.
        command = [sys.executable, "-c", COMPACT, corpus, str(PART_BYTES + kill)]
        objects = Store(corpus).objects("")
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while Store(corpus).objects("") == objects and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert rows_of(corpus) == expected, kill
    compact(corpus, part_bytes=PART_BYTES, grace_s=0)
    assert rows_of(corpus) == expected
    opened = Corpus.open(corpus)
    compactions = {path for made in opened.snapshot.compacted.values() for path in made.values()}
    parts = {part.path for path in compactions for part in read_compaction(opened.store, path).parts}
    assert set(opened.store.objects("compacted")) == compactions | parts
    assert opened.store.objects("snapshots") == [Snapshot.path(opened.snapshot.number)]


@pytest.mark.slow
def test_compaction_on_s3(s3, snippets, light, rows_of, tmp_path):
    out, local = f"{s3.bucket()}/corpus", str(tmp_path / "corpus")
    few = [str(path) for path in sorted(snippets.iterdir())[:4]]
    recipe = light(units=UNITS, annotators={"signal": {"kind": "signal"}})
    build(few, local, recipe)
    build(few, out, recipe)
    done = compact(out, part_bytes=PART_BYTES, grace_s=0)
    assert done.num_parts > 0
    assert num_tables(out) <= LONE_TABLES
    assert rows_of(out) == rows_of(local)


def test_nothing_younger_than_the_grace_is_removed(corpus):
    store = Store(corpus)
    store.write("layers/x/y/f/000000-abc-dead.parquet", b"of an attempt that may still commit")
    store.write("holdings/dead.parquet", b"")
    store.write("notes/mine.txt", b"no business of ours")
    store.write("commits/ingest/f/u.json.abc.draft", b"{")
    (before, draft), now_s = (store.details(), 2), time.time()
    assert collect(store, grace_s=3600).num_objects == 0
    assert store.details() == before
    for path in before:
        os.utime(os.path.join(corpus, path), (now_s - 7200, now_s - 7200))
    assert collect(store, grace_s=3600).num_objects == 1 + draft
    assert set(before) - set(store.details()) == {
        "layers/x/y/f/000000-abc-dead.parquet",
        "holdings/dead.parquet",
        "commits/ingest/f/u.json.abc.draft",
    }


def test_checkpoints_stay_until_their_unit_is_committed(corpus):
    store, snapshot = Store(corpus), read_snapshot(Store(corpus), 0)
    output, made = next((o, made) for o, made in snapshot.outputs.items() if o.startswith("layers/"))
    mark, units = next(iter(made.items()))
    store.write(f"checkpoints/{output}/{mark}/{units[0]}/w.parquet", b"")
    store.write(f"checkpoints/{output}/{mark}/999999-abc/w.parquet", b"")
    assert collect(store, grace_s=0).num_objects == 1
    assert store.objects("checkpoints") == [f"checkpoints/{output}/{mark}/999999-abc/w.parquet"]


@given(ages=st.lists(st.floats(0, 10), min_size=1, max_size=6), grace=st.floats(0, 10))
def test_a_snapshot_is_kept_while_the_one_after_it_is_young(ages, grace):
    ages = sorted(ages, reverse=True)
    details = {Snapshot.path(n): ObjectDetail(1, 100 - age) for n, age in enumerate(ages)}
    kept = kept_snapshots(details, 100, grace)
    assert kept == [n for n in range(len(ages)) if n == len(ages) - 1 or 100 - (100 - ages[n + 1]) < grace]


@given(
    sizes=st.lists(st.integers(1, 9), max_size=12),
    cuts=st.lists(st.integers(0, 12), unique=True).map(sorted),
    bound=st.integers(1, 20),
    gone=st.integers(0, 12),
)
def test_groups_hold_every_unit_once_in_order_and_begin_at_every_cut(sizes, cuts, bound, gone):
    units = [f"{n:02d}" for n in range(len(sizes)) if n != gone]
    names = [f"{n:02d}" for n in cuts]
    ends = {name: f"{max(after - 2, cut):02d}" for name, cut, after in zip(names, cuts, [*cuts[1:], 14], strict=False)}
    groups = list(cut_groups(units, ends, lambda unit: sizes[int(unit)], bound))
    assert [unit for _, group in groups for unit in group] == units
    for name, group in groups:
        assert name <= group[0]
        assert not [cut for cut in names if name < cut <= group[-1]]
        is_closed = name in names[:-1] and group[-1] <= ends[name] and name != max(n for n in [*names, ""] if n <= units[-1])
        assert is_closed or len(group) == 1 or sum(sizes[int(unit)] for unit in group) <= bound
    assert [name for name, _ in groups] == sorted({name for name, _ in groups})


@given(sizes=st.lists(st.integers(1, 9), max_size=12), bound=st.integers(1, 20), more=st.lists(st.integers(1, 9), max_size=4))
def test_groups_stay_when_cut_again_and_units_that_fit_into_none_stay_alone(sizes, bound, more):
    units = [f"{n:02d}" for n in range(len(sizes))]
    groups = list(cut_groups(units, {}, lambda unit: sizes[int(unit)], bound))
    # A group of one unit makes no part, so nobody knows it the next time.
    ends = {name: group[-1] for name, group in groups if len(group) > 1}
    assert list(cut_groups(units, ends, lambda unit: sizes[int(unit)], bound)) == groups
    grown = [*sizes, *more]
    units = [f"{n:02d}" for n in range(len(grown))]
    assert list(cut_groups(units, ends, lambda unit: grown[int(unit)], bound))[: max(0, len(groups) - 1)] == groups[:-1]


def test_every_table_role_is_one_that_works_write(corpus):
    snapshot = read_snapshot(Store(corpus), 0)
    assert all(table_roles(output) for output in snapshot.outputs)
