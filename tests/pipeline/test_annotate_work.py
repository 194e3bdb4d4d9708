"""Layers: gates, rows carried over between clip sets, checkpoints of long units, batches."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.prosody import Prosody
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.snapshots import clips_output, layer_output
from manifests.store import Store
from pipeline import annotate_work
from pipeline.annotate_work import cut_batches
from pipeline.assembly import make_works
from pipeline.build import annotate, build, dry_run


@given(st.lists(st.floats(0, 40), max_size=60), st.floats(1, 100))
def test_batches_cover_every_clip_once_within_the_bound(durations, most_s):
    runs = list(cut_batches(np.array(durations), most_s))
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(durations)))
    for start, stop in runs:
        assert sum(durations[start:stop]) <= most_s + 1e-6 or stop - start == 1


def gated(light, low):
    parts = {"signal": {"kind": "signal"}, "prosody": {"kind": "prosody", "when": {"column": "clip.duration_s", "min": low}}}
    return light(annotators=parts)


def test_a_gate_leaves_null_rows_and_says_what_it_saved(recordings, light, tmp_path):
    out = str(tmp_path / "corpus")
    result = build([str(recordings)], out, gated(light, 3.5))
    corpus = Corpus.open(out)
    clips, layer = corpus.clips(), corpus.layer("prosody")
    durations_s = np.asarray(
        pc.divide(pc.cast(pc.subtract(clips["end_sample"], clips["start_sample"]), "float64"), clips["sample_rate_hz"])
    )
    statuses = ["ok" if duration >= 3.5 else "gated" for duration in durations_s]
    assert set(statuses) == {"ok", "gated"}
    assert layer["status"].to_pylist() == statuses
    assert layer["clip_id"].equals(clips["clip_id"])
    shut = layer.filter(pc.equal(layer["status"], "gated"))
    assert all(shut[name].null_count == shut.num_rows for name in shut.column_names if name not in ("clip_id", "status"))
    rows = [row for row in ledger(out, result.run_id) if row["part"].endswith("/prosody")]
    assert sum(row["gated_audio_s"] for row in rows) == pytest.approx(durations_s[durations_s < 3.5].sum())
    assert sum(row["audio_s"] for row in rows) == pytest.approx(durations_s[durations_s >= 3.5].sum())


def ledger(out, run_id):
    from pipeline.ledger import read_ledger

    return read_ledger(Store(out), run_id).to_pylist()


def test_a_gate_reads_a_layer_and_runs_after_it(recordings, light, tmp_path):
    parts = {
        "prosody": {"kind": "prosody", "when": {"column": "signal.snr_db", "min": 1000.0, "on_null": False}},
        "signal": {"kind": "signal"},
    }
    out = str(tmp_path / "corpus")
    build([str(recordings)], out, light(annotators=parts))
    assert set(Corpus.open(out).layer("prosody")["status"].to_pylist()) == {"gated"}
    # Another threshold is another layer; the layer that the gate reads stays.
    parts["prosody"]["when"]["min"] = 0.0
    plan = dry_run([str(recordings)], out, light(annotators=parts))
    why = {row["output"].split("/")[-1]: row["why"] for row in plan.outputs if row["num_tasks"]}
    assert why == {"prosody": "annotators.prosody.when.min: 1000.0 → 0.0"}


@pytest.mark.parametrize(
    ("gate", "complaint"),
    [
        ({"column": "signal.loudness", "min": 0}, "column 'signal.loudness' does not exist; signal has"),
        ({"column": "clip.speed", "min": 0}, "clip has duration_s, speech_share, overlap_share, longest_pause_s"),
        ({"column": "asr.confidence", "min": 0}, "reads layer 'asr', which is not there"),
        ({"column": "style.pitch_level", "min": 0}, "column 'style.pitch_level' holds string; min and max bound numbers"),
    ],
)
def test_a_gate_on_what_is_not_there_is_refused(light, gate, complaint):
    parts = {name: {"kind": name} for name in ("signal", "prosody", "style")}
    with pytest.raises(RequestError, match=complaint):
        make_works(light(annotators={**parts, "again": {"kind": "signal", "when": gate}}))


def test_a_gate_on_a_layer_that_was_there_before_is_refused_when_it_is_read(recordings, light, tmp_path):
    out = str(tmp_path / "corpus")
    build([str(recordings)], out, light(annotators={"signal": {"kind": "signal"}}))
    parts = {"signal": {"kind": "signal"}, "prosody": {"kind": "prosody", "when": {"column": "signal.loudness", "min": 0}}}
    with pytest.raises(RequestError, match=r"column 'signal.loudness' does not exist; signal has clip_id, status"):
        annotate(out, {"prosody": light(annotators=parts).annotators["prosody"]})


def test_a_segmenter_gate_keeps_channels_out(recordings, light, tmp_path):
    """Who speaks is asked only where somebody speaks for long: not in the tone, not in the shorter utterance."""
    out = str(tmp_path / "corpus")
    second = {"kind": "silero", "onset": 0.6, "when": {"spans": "vad", "min_total_s": 4.0}}
    result = build([str(recordings)], out, light(segmenters={"vad": {"kind": "silero"}, "again": second}, annotators={}))
    corpus = Corpus.open(out)
    spoken: dict[bytes, float] = {}
    for row in corpus.spans("vad").to_pylist():
        length_s = (row["end_sample"] - row["start_sample"]) / row["sample_rate_hz"]
        spoken[row["recording_id"]] = spoken.get(row["recording_id"], 0.0) + length_s
    heard = {recording for recording, total_s in spoken.items() if total_s > 4.0}
    assert 0 < len(heard) < corpus.recordings().num_rows
    assert set(corpus.spans("again")["recording_id"].to_pylist()) == heard
    rows = [row for row in ledger(out, result.run_id) if row["part"] == "spans/again"]
    lengths_s = {r["recording_id"]: r["num_samples"] / r["sample_rate_hz"] for r in corpus.recordings().to_pylist()}
    assert sum(r["gated_audio_s"] for r in rows) == pytest.approx(sum(v for k, v in lengths_s.items() if k not in heard))


def test_rows_of_unchanged_clips_are_carried_to_another_clip_set(recordings, light, tmp_path, monkeypatch):
    parts = {"prosody": {"kind": "prosody"}}
    out, alone = str(tmp_path / "corpus"), str(tmp_path / "alone")
    first = build([str(recordings)], out, light(annotators=parts))
    before = Corpus.open(out)
    heard: list[bytes] = []
    annotate = Prosody.annotate

    def counting(self, batch):
        heard.extend(batch.clips["clip_id"].to_pylist())
        return annotate(self, batch)

    monkeypatch.setattr(Prosody, "annotate", counting)
    # Long utterances are cut, short ones stay.
    shorter = light(annotators=parts, clip_set={"turns": None, "max_s": 4.0})
    plan = dry_run([str(recordings)], out, shorter)
    assert any("rows of unchanged clips are carried over" in row["why"] for row in plan.outputs)
    second = build([str(recordings)], out, shorter)
    after = Corpus.open(out)
    old, new = set(before.clips()["clip_id"].to_pylist()), set(after.clips()["clip_id"].to_pylist())
    assert first.clip_set != second.clip_set
    assert old & new
    assert new - old
    assert set(heard) == new - old
    heard.clear()
    build([str(recordings)], alone, shorter)
    assert after.layer("prosody").equals(Corpus.open(alone).layer("prosody"))
    carried_s = sum(row["carried_audio_s"] for row in ledger(out, second.run_id))
    assert carried_s > 0
    # The first clip set stands as it was.
    assert Corpus.open(out, first.snapshot).layer("prosody").equals(before.layer("prosody"))


FACTUAL = '''
import pyarrow as pa

from manifests.contracts import Hearing, ModelFact, Resources


class Factual:
    """Says what it is told of the clip and its recording."""

    name, version, hears, reads, resources = "factual", "1", Hearing.NOTHING, ("clip", "recording"), Resources()
    adds = pa.schema([pa.field("num_spans", pa.int64()), pa.field("source_rate_hz", pa.int64())])
    batch_tolerance, models = 0.0, (ModelFact("somebody/weights", "c0ffee", "00", "CC-BY-4.0"),)

    def fingerprint(self):
        return "0"

    def setup(self):
        pass

    def annotate(self, batch):
        clips, recordings = batch.layers["clip"].to_pylist(), batch.layers["recording"].to_pylist()
        assert [row["recording_id"] for row in clips] == [row["recording_id"] for row in recordings]
        rows = [
            {"num_spans": len(c["speech_spans"]), "source_rate_hz": r["source_sample_rate_hz"]}
            for c, r in zip(clips, recordings, strict=True)
        ]
        return batch.table(rows, self.adds)
'''


def test_an_annotator_reads_facts_of_clip_and_recording_and_its_models_are_kept(recordings, light, tmp_path, monkeypatch):
    (tmp_path / "factual.py").write_text(FACTUAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    factual = {"facts": {"kind": "custom", "target": "factual:Factual"}}
    out = str(tmp_path / "corpus")
    build([str(recordings)], out, light(annotators=factual))
    corpus = Corpus.open(out)
    rates = {row["recording_id"]: row["source_sample_rate_hz"] for row in corpus.recordings().to_pylist()}
    clips, layer = corpus.clips().to_pylist(), corpus.layer("facts").to_pylist()
    assert {8000, 16_000} == {row["source_rate_hz"] for row in layer}
    assert [row["source_rate_hz"] for row in layer] == [rates[clip["recording_id"]] for clip in clips]
    assert [row["num_spans"] for row in layer] == [len(clip["speech_spans"]) for clip in clips]
    part = corpus.part(layer_output(corpus.clip_set, "facts"))
    assert part is not None
    assert [(model.name, model.licence) for model in part.models] == [("somebody/weights", "CC-BY-4.0")]
    assert corpus.part(clips_output(corpus.clip_set)) is None
    # What it says depends on the clip set: nothing is carried over, where prosody would be.
    shorter = light(annotators=factual, clip_set={"turns": None, "max_s": 4.0})
    assert not any("carried over" in row["why"] for row in dry_run([str(recordings)], out, shorter).outputs)


PAUSING = '''
from manifests.contracts import HeardSpan, Resources
from manifests.spans import Span


class Pausing:
    """Speech from the first to the last sample, but for a pause in the middle."""

    name, version, resources, models = "pausing", "1", Resources(), ()

    def __init__(self, pause_s):
        self.pause = round(pause_s * 16_000)

    def fingerprint(self):
        return f"pausing-{self.pause}"

    def setup(self):
        pass

    def segment(self, channel):
        num_samples = len(channel.audio)
        half = (num_samples - self.pause) // 2
        return [HeardSpan(Span(0, half)), HeardSpan(Span(half + self.pause, num_samples))]
'''


@pytest.mark.parametrize("gate", [{"column": "clip.speech_share", "min": 0.75}, {"column": "clip.longest_pause_s", "max": 0.5}])
def test_a_gate_on_what_the_clip_set_says_is_decided_for_each_clip_set(gate, recordings, light, tmp_path, monkeypatch):
    """The same clip, with little speech by one segmenter and with much by the other: its row is not carried over."""
    (tmp_path / "pausing.py").write_text(PAUSING)
    monkeypatch.syspath_prepend(str(tmp_path))

    def heard(pause_s):
        vad = {"kind": "custom", "target": "pausing:Pausing", "parameters": {"pause_s": pause_s}}
        recipe = light(
            segmenters={"vad": vad},
            clip_set={"turns": None, "max_s": 100.0, "max_pause_s": 10.0},
            annotators={"prosody": {"kind": "prosody", "when": gate}},
        )
        build([str(recordings / "tone.flac")], str(tmp_path / "corpus"), recipe)
        corpus = Corpus.open(str(tmp_path / "corpus"))
        return corpus.clips()["clip_id"].to_pylist(), corpus.layer("prosody")["status"].to_pylist()

    clips, statuses = heard(pause_s=1.0)
    assert statuses == ["gated"]
    assert heard(pause_s=0.1) == (clips, ["ok"])


def test_a_long_unit_goes_on_at_its_last_checkpoint(recordings, light, tmp_path, monkeypatch, assert_equal_corpora):
    """With windows of a clip each: a run that ends in the third window hears the first two only once."""
    monkeypatch.setattr(annotate_work, "WINDOW_AUDIO_S", 0.1)
    recipe = light(units={"max_inputs": 100}, annotators={"prosody": {"kind": "prosody"}})
    monkeypatch.setattr(Prosody, "resources", type(Prosody.resources)(batch_audio_s=0.001))
    out, unbroken = str(tmp_path / "broken"), str(tmp_path / "unbroken")
    build([str(recordings)], unbroken, recipe)
    heard: list[bytes] = []
    annotate = Prosody.annotate

    def stops(self, batch):
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.extend(batch.clips["clip_id"].to_pylist())
        return annotate(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Prosody, "annotate", stops)
        with pytest.raises(KeyboardInterrupt):
            build([str(recordings)], out, recipe)
    kept = Store(out).objects("checkpoints")
    assert len(kept) == 2
    done = {clip for path in kept for clip in Store(out).read_table(path)["clip_id"].to_pylist()}
    again: list[bytes] = []

    def counting(self, batch):
        again.extend(batch.clips["clip_id"].to_pylist())
        return annotate(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Prosody, "annotate", counting)
        build([str(recordings)], out, recipe)
    assert not done & set(again)
    assert Store(out).objects("checkpoints") == []
    assert_equal_corpora(out, unbroken)


def test_a_model_that_a_gate_leaves_out_everywhere_is_not_loaded(recordings, light, tmp_path, monkeypatch):
    def refuses(self):
        raise AssertionError("loaded for nothing")

    monkeypatch.setattr(Prosody, "setup", refuses)
    result = build([str(recordings)], str(tmp_path / "corpus"), gated(light, 1000.0))
    assert set(Corpus.open(result.corpus_uri).layer("prosody")["status"].to_pylist()) == {"gated"}
    with pytest.raises(AssertionError, match="loaded for nothing"):
        build([str(recordings)], str(tmp_path / "other"), gated(light, 1.0))
