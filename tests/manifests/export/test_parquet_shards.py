from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.corpus import Corpus
from manifests.export.corpus_reader import CorpusReader
from manifests.export.parquet_shards import ParquetShards
from manifests.export.row import FACTS
from manifests.export.work import export
from manifests.packs import Pack
from manifests.store import Store

datasets = pytest.importorskip("datasets")


def loaded(out: str, tmp_path: Path, *, streaming: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows of each split, audio not decoded: `datasets` 5 decodes by torchcodec, which needs FFmpeg's libraries."""
    found = datasets.load_dataset(out, streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert all(split.features["audio"] == datasets.Audio() for split in found.values())
    return {name: list(split.cast_column("audio", datasets.Audio(decode=False))) for name, split in found.items()}


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_loads_and_streams_it(
    source_uri: str, clips: dict[str, np.ndarray], out: str, tmp_path: Path, streaming: bool
) -> None:
    export(source_uri, "datasets", out)
    splits = loaded(out, tmp_path, streaming=streaming)
    rows = [row for split in splits.values() for row in split]
    assert {row["id"] for row in rows} == clips.keys()
    for row in rows:
        assert row.keys() == {"audio", *FACTS.names}
        audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        assert rate == row["sample_rate_hz"] == 8000
        assert len(audio) == row["num_samples"] == row["duration_s"] * 8000
        np.testing.assert_array_equal(audio, clips[row["id"]])
    assert {row["text"] for row in rows} >= {"Well, hello", "Hello, there"}


def test_splits_of_a_pack_stay_apart(packed: str, out: str, tmp_path: Path) -> None:
    export(packed, "datasets", out, columns=["tags", "tasks"])
    splits = loaded(out, tmp_path, streaming=True)
    documents = {split: Pack.open(packed).documents(split)["key"].to_pylist() for split in ("train", "test")}
    assert {split: [row["id"] for row in rows] for split, rows in splits.items()} == documents
    assert all(row["tasks"] == ["asr", "text"] and "pitch_level" in row["tags"] for rows in splits.values() for row in rows)


def test_one_split_alone(packed: str, out: str, tmp_path: Path) -> None:
    export(packed, "datasets", out, splits=["test"])
    assert loaded(out, tmp_path, streaming=True).keys() == {"test"}


def test_without_audio_there_are_facts_and_chosen_columns(tiny_corpus: str, out: str, tmp_path: Path) -> None:
    export(tiny_corpus, "datasets", out, with_audio=False, columns=["snr_db", "recording.codec", "clip.recording_id"])
    rows = list(datasets.load_dataset(out, cache_dir=str(tmp_path / "cache"))["train"])
    assert rows[0].keys() == {*FACTS.names, "signal.snr_db", "recording.codec", "clip.recording_id"}
    assert [row["signal.snr_db"] for row in rows] == [10.0, 15.0, 20.0, 25.0, 15.0, 20.0]
    assert all(row["clip.recording_id"] == row["recording_id"] for row in rows)


def test_many_shards_are_one_split(tiny_corpus: str, tmp_path: Path) -> None:
    store, reader = Store(str(tmp_path / "out")), CorpusReader(Corpus.open(tiny_corpus))
    for part in reader.parts():
        ParquetShards(with_audio=True, shard_bytes=1).write(store, part, reader.rows(part, with_audio=True), reader.schema)
    paths = store.objects("data")
    assert len(paths) == 6
    found = datasets.load_dataset(store.uri, cache_dir=str(tmp_path / "cache"))["train"]
    assert list(found["id"]) == [row.facts["id"] for part in reader.parts() for row in reader.rows(part, with_audio=False)]
