from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from manifests.corpus import Corpus, Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.errors import RequestError, WorkError
from manifests.store import Store


@pytest.fixture
def corpus(tiny_corpus: str) -> Corpus:
    return Corpus.open(tiny_corpus)


def with_snapshot(corpus: Corpus, **changed: object) -> Corpus:
    return Corpus(corpus.store, corpus.head, Snapshot(**{**corpus.snapshot.__dict__, **changed}))


def test_a_recording_of_two_units_is_read_once(corpus: Corpus) -> None:
    ids = corpus.recordings().column("recording_id").to_pylist()
    assert len(ids) == len(set(ids)) == 3
    clips = corpus.clips()
    assert clips.num_rows == 6
    assert len(set(clips.column("clip_id").to_pylist())) == 6
    # Facts stay per input: both files that held the recording are still listed.
    assert corpus.inputs().num_rows == 5


def test_layers_join_clips_by_position_though_rows_are_shadowed(corpus: Corpus) -> None:
    ids = corpus.clips().column("clip_id")
    assert sorted(corpus.layers()) == ["asr", "dnsmos", "signal", "style"]
    for name in corpus.layers():
        assert corpus.layer(name).column("clip_id") == ids
    hidden = with_snapshot(corpus, shadowed={})
    assert hidden.clips().num_rows == 7


def test_spans_are_those_of_the_owner(corpus: Corpus) -> None:
    assert corpus.spans("vad").num_rows == corpus.spans("diarization").num_rows == 6


def test_stored_audio_is_read_across_pieces(corpus: Corpus) -> None:
    clips = corpus.recordings().to_pylist()
    long = next(row for row in clips if row["num_samples"] > 60 * row["sample_rate_hz"])
    audio = corpus.audio().read(long["recording_id"], 0, 8_000, 59 * 8_000, 61 * 8_000)
    expected = (np.arange(59 * 8_000, 61 * 8_000) % 32_000) / 32_768
    np.testing.assert_allclose(audio, expected, atol=1e-6)


def test_a_layer_that_lacks_a_unit_is_refused(corpus: Corpus) -> None:
    output = "layers/turns/asr"
    outputs = {**corpus.snapshot.outputs, output: {corpus.fingerprint(output): ["u0"]}}
    with pytest.raises(RequestError, match="lacks 1 of 2 units"):
        with_snapshot(corpus, outputs=outputs).layer("asr")


def test_what_there_is_not_is_said(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no 'layers/turns/emotion'; it has"):
        corpus.layer("emotion")
    with pytest.raises(RequestError, match="no corpus at"):
        Corpus.open(str(tmp_path))
    with pytest.raises(RequestError, match="no snapshot 7"):
        Corpus.open(corpus.store.uri, snapshot=7)
    Store(str(tmp_path)).write("corpus.json", json.dumps({"format_version": 99}).encode())
    with pytest.raises(RequestError, match="format 99"):
        Corpus.open(str(tmp_path))


def test_a_commit_that_is_gone_is_work_that_failed(corpus: Corpus) -> None:
    current = {**corpus.snapshot.current, "clips/turns": "gone"}
    outputs = {**corpus.snapshot.outputs, "clips/turns": {"gone": ["u0"]}}
    with pytest.raises(WorkError, match="fsck"):
        with_snapshot(corpus, current=current, outputs=outputs).clips()


def test_one_of_two_publishers_of_a_number_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert latest_snapshot_number(store) == -1
    first, second = Snapshot(0, ["u0"], {}, {}, "turns"), Snapshot(0, ["u1"], {}, {}, "turns")
    assert publish_snapshot(store, first)
    assert not publish_snapshot(store, second)
    assert read_snapshot(store, 0) == first
    assert publish_snapshot(store, Snapshot(1, ["u1"], {}, {}, "turns"))
    assert latest_snapshot_number(store) == 1
