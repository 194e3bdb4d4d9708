from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.corpus import Corpus
from manifests.errors import ContractError, RequestError, WorkError
from manifests.snapshots import Snapshot, latest_snapshot_number, publish_snapshot
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


def test_views_hold_what_the_whole_tables_hold_unit_by_unit(corpus: Corpus) -> None:
    views = list(corpus.views())
    assert [view.unit_id for view in views] == ["u0", "u1"]
    for name in ("inputs", "recordings", "quarantine", "clips"):
        parts = [getattr(view, name)() for view in views]
        assert pa.concat_tables(parts) == getattr(corpus, name)(), name
        assert all(part.num_rows for part in parts) or name == "quarantine"
    assert pa.concat_tables([view.spans("vad") for view in views]) == corpus.spans("vad")
    for view in views:
        assert view.layer("asr")["clip_id"] == view.clips()["clip_id"]


def test_a_view_reads_the_columns_that_are_asked_for_in_their_order(corpus: Corpus) -> None:
    shadowed = list(corpus.views())[1]
    assert shadowed.clips(["start_sample", "clip_id"]) == shadowed.clips().select(["start_sample", "clip_id"])
    assert shadowed.layer("asr", ["text"]) == shadowed.layer("asr").select(["text"])
    assert shadowed.inputs(["uri"]).column_names == ["uri"]


def test_a_view_hears_its_own_unit_alone(corpus: Corpus) -> None:
    first, second = corpus.views()
    long = next(row for row in first.recordings().to_pylist() if row["num_samples"] > 60 * row["sample_rate_hz"])
    assert len(first.audio().read(long["recording_id"], 0, 8_000, 0, 8_000)) == 8_000
    with pytest.raises(ContractError, match="in no audio tar"):
        second.audio().read(long["recording_id"], 0, 8_000, 0, 8_000)


def test_facts_of_inputs_that_a_later_unit_took_again_count_no_more(corpus: Corpus) -> None:
    bad = corpus.quarantine()["input_id"][0].as_py()
    again = with_snapshot(corpus, superseded={"u1": [bad.hex()]})
    assert again.quarantine().num_rows == 0
    assert again.inputs().num_rows == corpus.inputs().num_rows - 1
    assert again.recordings() == corpus.recordings()


def test_a_unit_without_an_output_has_an_empty_table_of_it_and_no_layer(corpus: Corpus) -> None:
    outputs = {
        o: {mark: [u for u in done if u != "u1"] for mark, done in made.items()} for o, made in corpus.snapshot.outputs.items()
    }
    view = list(with_snapshot(corpus, outputs=outputs).views())[1]
    assert view.clips(["clip_id"]).num_rows == view.inputs().num_rows == 0
    assert view.audio_tars() == []
    with pytest.raises(RequestError, match="lacks unit u1"):
        view.layer("asr")


def test_a_snapshot_that_a_takedown_removed_meanwhile_is_not_asked_for_again(tiny_corpus, tmp_path, monkeypatch) -> None:
    uri = shutil.copytree(tiny_corpus, str(tmp_path / "copy"))
    store, before = Store(uri), Corpus.open(uri).snapshot
    assert publish_snapshot(store, replace(before, number=before.number + 1))
    store.remove(Snapshot.path(before.number))
    listed = iter([before.number])
    monkeypatch.setattr("manifests.corpus.latest_snapshot_number", lambda at: next(listed, latest_snapshot_number(at)))
    assert Corpus.open(uri).snapshot.number == before.number + 1
