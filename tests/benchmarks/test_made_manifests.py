"""Made manifests are a corpus like any other, and the same one for any number of processes."""

from __future__ import annotations

import pytest

from benchmarks.made_manifests import make_corpus
from benchmarks.made_plan import ADDS, SOURCES, Plan
from manifests.corpus import Corpus
from manifests.open_rows import corpus_rows

PLAN = Plan(900, seed=3, unit_clips=130, clips_a_recording=9, plant_every=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    uri = str(tmp_path_factory.mktemp("made") / "corpus")
    make_corpus(uri, PLAN, num_processes=1)
    return Corpus.open(uri)


def test_processes_change_no_row(corpus, tmp_path):
    make_corpus(str(tmp_path / "corpus"), PLAN, num_processes=2)
    other = Corpus.open(str(tmp_path / "corpus"))
    assert other.inputs().equals(corpus.inputs())
    assert other.recordings().equals(corpus.recordings())
    assert other.clips().equals(corpus.clips())
    for layer in ADDS.keys() - {"style"}:  # which is not finished
        # NaN is planted, and NaN is not equal to itself: as text it is.
        assert str(other.layer(layer).to_pylist()) == str(corpus.layer(layer).to_pylist())


def test_another_seed_makes_other_clips(corpus, tmp_path):
    make_corpus(str(tmp_path / "corpus"), Plan(130, seed=4, unit_clips=130), num_processes=1)
    ids = Corpus.open(str(tmp_path / "corpus")).clips()["clip_id"].to_pylist()
    assert len(set(ids)) == 130
    assert not set(ids) & set(corpus.clips()["clip_id"].to_pylist())


def test_rows_join_and_ids_are_single(corpus):
    rows = corpus_rows(corpus)
    columns = ["clip.clip_id", "recording.num_samples", "input.source", "asr.status", "speaker_id.similarity", "clip.duration_s"]
    tables = [rows.read(part, columns) for part in rows.slices]
    assert sum(table.num_rows for table in tables) == PLAN.num_clips
    ids = [clip for table in tables for clip in table["clip.clip_id"].to_pylist()]
    assert len(set(ids)) == PLAN.num_clips
    assert {name for table in tables for name in table["input.source"].to_pylist()} <= {source.name for source in SOURCES}
    assert not any(table["recording.num_samples"].null_count for table in tables)
    people = corpus.decisions("speaker_id", "speakers")
    assert sum(people["num_clips"].to_pylist()) == PLAN.num_clips
    mean_s = sum(value for table in tables for value in table["clip.duration_s"].to_pylist()) / PLAN.num_clips
    assert 8 < mean_s < 12


@pytest.mark.parametrize("num_clips", [1, 131])
def test_small_ones_are_whole(tmp_path, num_clips):
    make_corpus(str(tmp_path / "corpus"), Plan(num_clips, unit_clips=130), num_processes=1)
    assert Corpus.open(str(tmp_path / "corpus")).clips().num_rows == num_clips
