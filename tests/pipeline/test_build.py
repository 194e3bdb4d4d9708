"""Builds: what is committed, what a second run does, what a change re-runs, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from pydantic import TypeAdapter

from annotators.catalog import AnnotatorConfig
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.store import Store
from pipeline.assembly import make_works
from pipeline.build import BuildResult, annotate, build, dry_run
from pipeline.engines import InlineEngine
from pipeline.sources import ColumnMap


@pytest.fixture(scope="module")
def built(recordings, light, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("built") / "corpus")
    result = build([str(recordings)], out, light())
    assert isinstance(result, BuildResult)
    return result


def test_what_a_build_makes(built):
    corpus = Corpus.open(built.corpus_uri)
    assert (built.num_inputs, built.num_refused, built.num_recordings, built.num_units) == (5, 1, 4, 5)
    recordings, clips = corpus.recordings(), corpus.clips()
    assert set(recordings["source_sample_rate_hz"].to_pylist()) == {8000, 16_000}
    assert clips.num_rows == built.num_clips >= 3
    for name in ("signal", "prosody", "style"):
        layer = corpus.layer(name)
        assert layer["clip_id"].to_pylist() == clips["clip_id"].to_pylist()
        assert set(layer["status"].to_pylist()) <= {"ok", "abstained"}
    # The tone is stored, and nobody speaks in it.
    tone = next(r for r in recordings.to_pylist() if r["num_samples"] == 32_000)
    assert tone["recording_id"] not in clips["recording_id"].to_pylist()
    assert corpus.quarantine()["reason"].to_pylist() == ["not_audio"]


def test_clips_lie_in_their_recordings_and_can_be_heard(built):
    corpus = Corpus.open(built.corpus_uri)
    lengths = {r["recording_id"]: r["num_samples"] for r in corpus.recordings().to_pylist()}
    reader = corpus.audio()
    for clip in corpus.clips().to_pylist():
        assert 0 <= clip["start_sample"] < clip["end_sample"] <= lengths[clip["recording_id"]]
        place = (clip["recording_id"], clip["channel"], clip["sample_rate_hz"], clip["start_sample"], clip["end_sample"])
        audio = reader.read(*place)
        assert len(audio) == clip["end_sample"] - clip["start_sample"]
        assert np.abs(audio).max() > 0.001


def test_a_second_run_does_nothing(built, recordings, light):
    before = Store(built.corpus_uri).objects("")
    again = build([str(recordings)], built.corpus_uri, light())
    assert (again.num_tasks_done, again.run_id, again.snapshot) == (0, None, built.snapshot)
    assert Store(built.corpus_uri).objects("") == before


def test_changing_one_annotator_reruns_it_and_what_reads_it(built, recordings, light):
    parts = {"signal": {"kind": "signal"}, "prosody": {"kind": "prosody"}, "style": {"kind": "style"}}

    def reruns(**changed):
        plan = dry_run([str(recordings)], built.corpus_uri, light(annotators={**parts, **changed}))
        return {row["output"].split("/")[-1]: row["why"] for row in plan.outputs if row["num_tasks"]}

    assert reruns() == {}
    changed = "annotators.style.rate_fast_hz: 5.0 → 6.5"
    assert reruns(style={"kind": "style", "rate_fast_hz": 6.5}) == {"style": changed}
    longer = {"kind": "prosody", "min_voiced_s": 0.3}
    clip_set = Corpus.open(built.corpus_uri).clip_set
    assert reruns(prosody=longer) == {
        "prosody": "annotators.prosody.min_voiced_s: 0.2 → 0.3",
        "style": f"reads layers/{clip_set}/prosody, which changes",
    }


def test_another_vad_setting_makes_another_clip_set_beside_the_first(recordings, light, tmp_path):
    out = str(tmp_path / "corpus")
    first = build([str(recordings)], out, light(annotators={}))
    second = build([str(recordings)], out, light(annotators={}, segmenters={"vad": {"kind": "silero", "onset": 0.8}}))
    assert first.clip_set != second.clip_set
    assert second.num_tasks_reused == second.num_units  # ingest alone
    assert Corpus.open(out, first.snapshot).clips().num_rows == first.num_clips
    assert Corpus.open(out).clips().num_rows == second.num_clips


def test_new_inputs_make_new_units_and_equal_bytes_are_one_recording(recordings, light, tmp_path):
    folder, out = tmp_path / "in", str(tmp_path / "corpus")
    folder.mkdir()
    shutil.copy(recordings / "BAC009S0764W0121.wav", folder / "b.wav")
    first = build([str(folder)], out, light())
    shutil.copy(recordings / "BAC009S0764W0121.wav", folder / "a.wav")  # the same bytes, listed before
    shutil.copy(recordings / "tone.flac", folder / "z.flac")
    second = build([str(folder)], out, light())
    assert (second.num_inputs, second.num_recordings, second.num_clips) == (3, 2, first.num_clips)
    corpus = Corpus.open(out)
    assert len(corpus.snapshot.shadowed) == 1
    assert corpus.layer("signal").num_rows == corpus.clips().num_rows
    assert sorted(r["uri"].rsplit("/", 1)[1] for r in corpus.inputs().to_pylist()) == ["a.wav", "b.wav", "z.flac"]


def test_unit_bounds_change_no_row(built, recordings, light, tmp_path, rows_of):
    out = str(tmp_path / "corpus")
    build([str(recordings)], out, light(units={"max_inputs": 3}))
    assert rows_of(out) == rows_of(built.corpus_uri)


def test_annotate_adds_a_layer_to_a_finished_corpus(recordings, light, tmp_path):
    out = str(tmp_path / "corpus")
    build([str(recordings)], out, light(annotators={}))
    config = TypeAdapter(AnnotatorConfig).validate_python({"kind": "prosody"})
    result = annotate(out, {"prosody": config})
    assert result.num_tasks_done == result.num_units
    assert Corpus.open(out).layer("prosody").num_rows == result.num_clips
    style = TypeAdapter(AnnotatorConfig).validate_python({"kind": "style"})
    assert annotate(out, {"style": style}).num_tasks_done == result.num_units


def test_a_shard_with_facts_is_a_source_and_not_opened_again(recordings, light, tmp_path, monkeypatch):
    shard, out = tmp_path / "s.tar", str(tmp_path / "corpus")
    with tarfile.open(shard, "w") as tar:
        tar.add(recordings / "BAC009S0764W0121.wav", "a.wav")
        (tmp_path / "a.json").write_text(json.dumps({"transcript": "hi", "lang": "zh"}))
        tar.add(tmp_path / "a.json", "a.json")
    columns = ColumnMap(text="transcript", language="lang")
    assert build([str(shard)], out, light(annotators={}), columns=columns).num_recordings == 1
    (row,) = Corpus.open(out).inputs().to_pylist()
    assert (row["uri"], row["text"], row["language"], row["source"]) == (f"{shard}#a.wav", "hi", "zh", str(tmp_path))
    assert row["facts_from"] == f"{shard} (language=lang, text=transcript)"
    monkeypatch.setattr(tarfile, "open", None)  # whoever opens it now fails
    assert build([str(shard)], out, light(annotators={}), columns=columns).num_tasks_done == 0


def test_the_command_maps_columns_and_names_one_that_is_missing(recordings, tmp_path):
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": str(recordings / "tone.flac"), "words": "x"}))
    command = [sys.executable, "-m", "stepwell", "corpus", "build", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "corpus")]
    wrong = subprocess.run([*command, "--column", "text=transcript"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1].endswith("has no column 'transcript' (text=transcript); it has path, words")
    right = subprocess.run([*command, "--column", "text=words", "--dry-run"], capture_output=True, text=True)
    assert right.stdout.startswith("1 input listed, 1 new")
    assert not (tmp_path / "corpus").exists()


def test_what_an_annotator_reads_must_be_there(light):
    with pytest.raises(RequestError, match="reads layer 'prosody'"):
        make_works(light(annotators={"style": {"kind": "style"}}))


def test_refusals_leave_nothing_behind(recordings, light, tmp_path):
    empty, out = tmp_path / "empty", tmp_path / "corpus"
    empty.mkdir()
    for source in (tmp_path / "nowhere", empty):
        with pytest.raises(RequestError):
            build([str(source)], str(out), light())
    assert not out.exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RequestError, match="cannot be written"):
        build([str(recordings)], str(tmp_path / "file" / "corpus"), light())


def test_another_stored_rate_is_refused(built, recordings, light):
    with pytest.raises(RequestError, match="stores audio at 'native'"):
        build([str(recordings)], built.corpus_uri, light(store={"sample_rate": 16000}))


def test_a_corpus_in_a_memory_store_equals_one_on_disk(built, recordings, light, assert_equal_corpora):
    build([str(recordings)], "memory://corpora/one", light())
    assert_equal_corpora("memory://corpora/one", built.corpus_uri)


def test_overlapping_runs_keep_each_others_units(recordings, light, tmp_path):
    """One run builds other sources into the corpus while this one works: both are in the snapshot that comes last."""
    out = str(tmp_path / "corpus")

    class WithAnotherRun(InlineEngine):
        def run(self, *arguments):
            build([str(recordings / "tone.flac")], out, light())
            super().run(*arguments)

    build([str(recordings / "conversation.wav")], out, light(), WithAnotherRun())
    uris = Corpus.open(out).inputs()["uri"].to_pylist()
    assert sorted(uri.rsplit("/", 1)[1] for uri in uris) == ["conversation.wav", "tone.flac"]


def test_annotate_leaves_units_alone_that_no_build_has_finished(recordings, light, tmp_path):
    class Broken(InlineEngine):
        def run(self, *arguments):
            raise WorkError("cut short")

    out = str(tmp_path / "corpus")
    build([str(recordings / "conversation.wav")], out, light(annotators={}))
    with pytest.raises(WorkError, match="cut short"):
        build([str(recordings)], out, light(annotators={}), Broken())
    # In the order of what they read, whatever order they are asked for in.
    kinds = {name: TypeAdapter(AnnotatorConfig).validate_python({"kind": name}) for name in ("style", "prosody")}
    result = annotate(out, kinds)
    assert result.num_tasks_done == 2
    assert Corpus.open(out).layer("style").num_rows == result.num_clips


@pytest.mark.slow
def test_broken_files_beside_good_ones_end_in_quarantine_and_the_job_in_success(shared, light, tmp_path):
    """All 26, the hour of silence too: refused or kept in part as the material says, and everything else is there."""
    recipe = tmp_path / "light.yaml"
    recipe.write_text(light(units={"max_inputs": 100}, annotators={"signal": {"kind": "signal"}}).model_dump_json())
    sources = [str(shared / "testdata" / "broken"), str(shared / "testdata" / "audio" / "zh")]
    command = [sys.executable, "-m", "stepwell", "corpus", "build", *sources, "--out", str(tmp_path / "corpus")]
    done = subprocess.run([*command, "--recipe", str(recipe), "--engine", "local"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 refused, 2 kept in part" in done.stdout
    corpus = Corpus.open(str(tmp_path / "corpus"))
    rows = [json.loads(line) for line in (shared / "testdata" / "manifest.jsonl").read_text().splitlines()]
    expected = {row["path"].rsplit("/", 1)[1]: row["expect"] for row in rows if "broken" in row["kinds"]}
    found = {row["uri"].rsplit("/", 1)[1]: row for row in corpus.inputs().to_pylist()}
    spoken = set(corpus.clips()["recording_id"].to_pylist())
    assert len(expected) == 26
    for name, expect in expected.items():
        outcome, recording = found[name]["outcome"], found[name]["recording_id"]
        if expect.startswith("ok"):
            assert outcome == "stored", name
        if expect == "ok_no_speech":
            assert recording not in spoken, name
        if expect in ("error", "empty", "reject", "reject_or_repair"):
            assert outcome == "refused", name
        if expect.startswith("partial"):
            assert outcome in ("partial", "refused"), name
    reasons = corpus.quarantine().to_pylist()
    assert len(reasons) == 12
    assert all(row["reason"] and row["message"] for row in reasons)


def test_what_an_engine_took_for_a_build_that_is_refused_is_given_back(recordings, light, tmp_path, monkeypatch):
    """A cluster that was started to see whether the plan fits must not outlive the refusal."""
    held = []

    class Holding(InlineEngine):
        def check(self, works):
            held.append("cluster")

        def close(self):
            held.clear()

    def refuses(self):
        assert held
        raise RequestError("no conditional writes here")

    monkeypatch.setattr(Store, "check_exclusive", refuses)
    with pytest.raises(RequestError, match="no conditional writes"):
        build([str(recordings)], str(tmp_path / "corpus"), light(), Holding())
    assert not held
