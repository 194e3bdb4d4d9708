from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from manifests.corpus import Corpus
from manifests.errors import RequestError
from pipeline.build import build
from pipeline.copies.dedup import dedup
from pipeline.copies.recipe import DedupConfig
from pipeline.leave_out import check_tables
from pipeline.rights.matching import Rule
from pipeline.rights.takedown import take_down


@pytest.fixture(scope="module")
def deduplicated(corpus, tmp_path_factory):
    uri = shutil.copytree(corpus, str(tmp_path_factory.mktemp("dedup") / "corpus"))
    return uri, dedup(uri, DedupConfig(by=("exact", "near", "text")))


def rows(uri):
    return Corpus.open(uri).decisions("duplicates", "clips").to_pylist()


def test_every_planted_copy_is_found_and_nothing_else(deduplicated, planted, names):
    uri, _ = deduplicated
    groups = {}
    for name, row in zip(names(uri), rows(uri), strict=True):
        if row["group_id"] is not None:
            groups.setdefault(row["group_id"], set()).add(name)
    assert {frozenset(group) for group in groups.values()} == planted.groups


def test_one_of_each_group_stays_and_the_others_name_it(deduplicated, planted, names):
    uri, result = deduplicated
    named, found = names(uri), rows(uri)
    name_of = {row["clip_id"]: name for name, row in zip(named, found, strict=True)}
    left_out = {name: row for name, row in zip(named, found, strict=True) if row["drop_reason"]}
    kept = {name: name_of[row["kept_clip_id"]] for name, row in left_out.items()}
    for group in planted.groups:
        (stays,) = group - kept.keys()
        assert {kept[name] for name in group - {stays}} == {stays}
        # What was encoded, resampled or cut is worse; of another level or container, it is as good, and the id decides.
        assert stays.startswith("adam") or stays in {"copy-2", "exact-1"}
    pair = {"adam-1", "exact-1"}
    assert {row["drop_reason"] for name, row in left_out.items() if name in pair} == {"exact_copy"}
    assert result.left_out == {"exact_copy": 1, "near_copy": len(planted.copies)}
    assert len(kept) == len(planted.copies) + 1
    assert all(row["overlap_s"] > 2 and row["bit_error_rate"] < 0.25 for row in left_out.values())


def test_a_jingle_is_a_fact_with_its_place_and_leaves_out_nobody(deduplicated, names):
    uri, _ = deduplicated
    name_of = dict(zip((row["clip_id"] for row in rows(uri)), names(uri), strict=True))
    pairs = Corpus.open(uri).decisions("duplicates", "pairs").to_pylist()
    (jingle,) = [pair for pair in pairs if {name_of[pair["clip_id"]], name_of[pair["other_clip_id"]]} == {"show-0", "show-1"}]
    assert jingle["kind"] == "near"
    assert not jingle["is_whole"]
    seconds = (jingle["end_sample"] - jingle["start_sample"]) / 16_000
    assert seconds == pytest.approx(jingle["overlap_s"], abs=0.05)
    assert 3 < seconds < 8
    assert jingle["start_sample"] > 16_000
    assert jingle["share"] < 0.6


def test_the_same_text_is_marked_and_left_out_only_when_asked_for(deduplicated, corpus, tmp_path, names, planted):
    uri, result = deduplicated
    groups = {}
    for name, row in zip(names(uri), rows(uri), strict=True):
        groups.setdefault(row["text_group_id"], set()).add(name)
    assert {"adam-9", "beth-9"} in groups.values()
    assert result.num_text_groups == 10
    copied = shutil.copytree(corpus, str(tmp_path / "corpus"))
    by_speaker = dedup(copied, DedupConfig(by=("exact", "near", "text"), leave_out_text="same_speaker"))
    assert by_speaker.left_out == result.left_out  # who says it twice is a copy already
    by_any = dedup(copied, DedupConfig(by=("exact", "near", "text"), leave_out_text="any"))
    assert by_any.left_out["same_text"] == 10
    assert by_any.is_new


def test_a_transcript_of_a_recording_that_is_several_clips_is_no_text_of_theirs(planted, light, tmp_path):
    source, uri = tmp_path / "m.jsonl", str(tmp_path / "corpus")
    source.write_text(
        json.dumps({"path": str(planted.folder / "show-0.wav"), "text": "four words or more", "language": "en"}) + "\n"
    )
    build([str(source)], uri, light(clip_set={"turns": None, "max_s": 4.0}, annotators={"content": {"kind": "content"}}))
    result = dedup(uri, DedupConfig(by=("exact", "near", "text"), leave_out_text="any"))
    assert result.num_clips > 1
    assert (result.num_text_groups, result.left_out) == (0, {})


def test_without_criteria_the_smallest_id_stays(corpus, tmp_path):
    uri = shutil.copytree(corpus, str(tmp_path / "corpus"))
    dedup(uri, DedupConfig(by=("exact",), keep=()))
    (left_out,) = [row for row in rows(uri) if row["drop_reason"]]
    assert left_out["kept_clip_id"] < left_out["clip_id"]


def test_again_there_is_nothing_to_do_until_units_come(deduplicated, planted, recipe, tmp_path, names):
    uri, result = deduplicated
    copied = shutil.copytree(uri, str(tmp_path / "corpus"))
    config = DedupConfig(by=("exact", "near", "text"))
    again = dedup(copied, config)
    assert not again.is_new
    assert again.left_out == result.left_out
    assert again.snapshot == Corpus.open(copied).snapshot.number
    build([str(planted.folder / "ad.mp3")], copied, recipe)
    more = dedup(copied, config)
    assert more.is_new
    assert more.num_clips == result.num_clips + 1
    # The advert alone is an excerpt of both shows: what they hold is not lost, and it goes.
    named, found = names(copied), rows(copied)
    (ad,) = [row for name, row in zip(named, found, strict=True) if name == "ad"]
    assert ad["drop_reason"] == "near_copy"
    assert {name for name, row in zip(named, found, strict=True) if row["clip_id"] == ad["kept_clip_id"]} <= {"show-0", "show-1"}


def test_what_decides_who_stays_is_the_callers(corpus, tmp_path, names):
    uri = shutil.copytree(corpus, str(tmp_path / "corpus"))
    dedup(uri, DedupConfig(keep=("source_sample_rate_hz:lowest",)))
    reasons = {name: row["drop_reason"] for name, row in zip(names(uri), rows(uri), strict=True)}
    assert [reasons[name] for name in ("adam-3", "copy-3", "adam-5", "copy-5")] == ["near_copy", None, "near_copy", None]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DedupConfig(content_layer="asr"), "layer 'asr' is not in corpus"),
        (DedupConfig(keep=("clip.duration:highest",)), "clip.duration_s"),
        (DedupConfig(keep=("clip.duration_s:best",)), "COLUMN:DIRECTION"),
        (DedupConfig(keep=("recording.codec:highest",)), "'recording.codec' holds string and no numbers"),
        (DedupConfig(by=("text",), text_column="asr.text"), "asr.text"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_changes(corpus, config, message):
    before = sorted(str(path) for path in Path(corpus).rglob("*"))
    with pytest.raises(RequestError, match=message):
        dedup(corpus, config)
    assert sorted(str(path) for path in Path(corpus).rglob("*")) == before


def test_a_scheduler_that_is_not_there_is_refused_and_nothing_changes(corpus, monkeypatch):
    monkeypatch.setattr("manifests.fold.ANSWER_WITHIN_S", 0.5)
    before = sorted(str(path) for path in Path(corpus).rglob("*"))
    with pytest.raises(RequestError, match=r"scheduler 'tcp://127.0.0.1:1' does not answer .*; start one with `dask scheduler`"):
        dedup(corpus, DedupConfig(), scheduler="tcp://127.0.0.1:1")
    assert sorted(str(path) for path in Path(corpus).rglob("*")) == before


def test_when_who_stays_is_taken_down_another_copy_has_to_stay(deduplicated, tmp_path):
    uri = shutil.copytree(deduplicated[0], str(tmp_path / "corpus"))
    before = {row["clip_id"]: row for row in rows(uri)}
    kept = next(row["kept_clip_id"] for row in before.values() if row["drop_reason"] == "near_copy")
    recording = dict(zip(*(Corpus.open(uri).clips()[name].to_pylist() for name in ("clip_id", "recording_id")), strict=True))[
        kept
    ]
    take_down(uri, [Rule.parse("recording", recording.hex())], reason="asked to")
    with pytest.raises(RequestError, match=r"'duplicates' was made of 'tables/takedowns' \(none\)"):
        check_tables(Corpus.open(uri), ["duplicates"])
    dedup(uri, DedupConfig(by=("exact", "near", "text")))
    check_tables(Corpus.open(uri), ["duplicates"])
    orphans = [row for row in rows(uri) if before[row["clip_id"]]["kept_clip_id"] == kept]
    assert len(orphans) >= 1
    assert sum(row["drop_reason"] is None for row in orphans) == 1
