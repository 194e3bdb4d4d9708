"""Speech-like sound, and a small corpus written through the contracts (the pipeline is another folder's business)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.audio import encode_flac, piece_name
from manifests.commits import Attempt
from manifests.contracts import Audio, ClipBatch
from manifests.corpus import Corpus
from manifests.ids import clip_id, digest_bytes
from manifests.recipes import decode_recipe
from manifests.schema import CLIPS, INPUTS, QUARANTINE, RECORDINGS, field, layer_schema, table_of
from manifests.snapshots import (
    INGEST,
    Snapshot,
    clips_output,
    latest_snapshot_number,
    layer_output,
    publish_snapshot,
    read_snapshot,
)
from manifests.store import Store, json_bytes
from manifests.tars import TarWriter
from tokenization.build import TokenizerResult, build_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe

CLIP_SET = "turns"
RATE_HZ = 22_050
TEXTS = ("the cat sat on the mat", "你好，世界", "one two three four five")


@pytest.fixture(scope="session")
def voice() -> Callable[..., Audio]:
    """``voice(seconds, seed, rate)``: harmonics of a gliding pitch under syllables, with a little noise."""

    def make(seconds: float, seed: int = 0, rate: int = 16_000) -> Audio:
        random = np.random.default_rng(seed)
        at = np.arange(round(seconds * rate)) / rate
        pitch = random.uniform(100, 220) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.3, 0.9) * at))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 20))
        syllables = np.clip(np.sin(2 * np.pi * random.uniform(2, 4) * at + random.uniform(0, 6)), 0, 1) ** 0.5
        return (0.15 * tone * syllables + 0.002 * random.standard_normal(len(at))).astype(np.float32)

    return make


@pytest.fixture
def corpus_uri(tmp_path: Path, voice: Callable[..., Audio]) -> str:
    """Three recordings of 3 s at 22.05 kHz, two clips each, with a transcript apiece and a layer ``asr``."""
    store = Store(str(tmp_path / "corpus"))
    store.write("corpus.json", json_bytes({"format_version": 1, "corpus_id": "c0", "sample_rate": "native"}))
    audios = [voice(3.0, seed, RATE_HZ) for seed in range(3)]
    ids = [digest_bytes(audio.tobytes()) for audio in audios]
    tar = TarWriter()
    for recording, audio in zip(ids, audios, strict=True):
        tar.add(piece_name(recording, 0, 0), encode_flac(audio, RATE_HZ))
    data, index = tar.close()
    ingest = Attempt(store, INGEST, "f0", "u0")
    path = ingest.put("audio", "audio", ".tar", data)
    store.write(f"{path}.idx", index)
    ingest.put_table("inputs", "inputs", table_of([_input(r, i) for i, r in enumerate(ids)], INPUTS))
    ingest.put_table("recordings", "recordings", table_of([_recording(r) for r in ids], RECORDINGS))
    ingest.put_table("quarantine", "quarantine", QUARANTINE.empty_table())
    assert ingest.commit()
    rows = [_clip(r, s, e) for r in ids for s, e in ((0, 22_051), (30_000, 66_150))]
    clips = Attempt(store, clips_output(CLIP_SET), "f1", "u0")
    clips.put_table("clips", "clips", table_of(rows, CLIPS))
    assert clips.commit()
    current = {INGEST: "f0", clips_output(CLIP_SET): "f1"}
    outputs = {name: {fingerprint: ["u0"]} for name, fingerprint in current.items()}
    assert publish_snapshot(store, Snapshot(0, ["u0"], outputs, current, CLIP_SET))
    adds = pa.schema([field("text", pa.string(), "transcript")])
    guessed = [{"clip_id": row["clip_id"], "status": "ok", "text": f"guess {i}"} for i, row in enumerate(rows)]
    write_layer(store.uri, "asr", pa.Table.from_pylist(guessed, schema=layer_schema(adds)))
    return store.uri


def write_layer(corpus_uri: str, name: str, table: pa.Table, fingerprint: str = "f2") -> None:
    """Add a layer to the newest snapshot of a corpus of one unit."""
    store = Store(corpus_uri)
    before = read_snapshot(store, latest_snapshot_number(store))
    output = layer_output(CLIP_SET, name)
    layer = Attempt(store, output, fingerprint, "u0")
    layer.put_table("layer", f"layers/{CLIP_SET}/{name}", table)
    assert layer.commit()
    after = Snapshot(
        before.number + 1,
        before.units,
        {**before.outputs, output: {fingerprint: ["u0"]}},
        {**before.current, output: fingerprint},
        CLIP_SET,
    )
    assert publish_snapshot(store, after)


@pytest.fixture(scope="session")
def add_layer() -> Callable[..., None]:
    return write_layer


def _input(recording: bytes, number: int) -> dict[str, object]:
    return {
        "input_id": digest_bytes(bytes([number])),
        "uri": f"file:///in/{number}.wav",
        "num_bytes": 100,
        "version": "1",
        "source": "in",
        "outcome": "stored",
        "recording_id": recording,
        "text": TEXTS[number],
    }


def _recording(recording: bytes) -> dict[str, object]:
    return {
        "recording_id": recording,
        "num_samples": 3 * RATE_HZ,
        "sample_rate_hz": RATE_HZ,
        "num_channels": 1,
        "heard_channels": [0],
        "source_sample_rate_hz": RATE_HZ,
        "codec": "pcm_s16le",
        "container": "wav",
        "stored_bits": 16,
        "stored_scale": 1.0,
        "peak": 0.5,
        "rms_dbfs": -20.0,
        "bandwidth_hz": 8000.0,
        "declared_num_samples": 3 * RATE_HZ,
        "is_truncated": False,
        "is_interleaved": False,
    }


def _clip(recording: bytes, start: int, end: int) -> dict[str, object]:
    return {
        "clip_id": clip_id(recording, 0, RATE_HZ, start, end),
        "recording_id": recording,
        "channel": 0,
        "sample_rate_hz": RATE_HZ,
        "start_sample": start,
        "end_sample": end,
        "speaker_label": None,
        "speech_samples": end - start,
        "overlap_samples": 0,
        "speech_spans": [{"start_sample": 0, "end_sample": end - start}],
        "overlap_spans": [],
    }


RECIPE_TEXT = """
name: test
text: {kind: bpe, vocab_size: 270, text_from: [source, asr]}
codec:
  kind: fsq
  network: {num_mels: 40, width: 16, encoder_blocks: 1, decoder_blocks: 1}
  training: {steps: 12, batch_s: 5.0, log_every: 5}
"""


@pytest.fixture(scope="session")
def recipe_text() -> str:
    """A tokenizer recipe that trains in a second."""
    return RECIPE_TEXT


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., TokenizerRecipe]:
    """``make_recipe(text)``: decoded, ``recipe_text`` by default."""

    def make(text: str = RECIPE_TEXT) -> TokenizerRecipe:
        return decode_recipe(TokenizerRecipe, text, "test")

    return make


@pytest.fixture
def built(corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe]) -> TokenizerResult:
    """A tokenizer trained on the small corpus, in ``tmp_path / "tokenizer"``."""
    return build_tokenizer(corpus_uri, str(tmp_path / "tokenizer"), make_recipe())


@pytest.fixture(scope="session")
def encode_corpus() -> Callable[[str, str], pa.Table]:
    """``encode_corpus(corpus_uri, tokenizer_uri)``: the layer of codes, as an engine makes it."""
    return encoded


def encoded(corpus_uri: str, tokenizer_uri: str) -> pa.Table:
    """The layer of codes, as an engine makes it."""
    corpus = Corpus.open(corpus_uri)
    reader, clips = corpus.audio(), corpus.clips()
    audio = [
        reader.read(c["recording_id"], c["channel"], c["sample_rate_hz"], c["start_sample"], c["end_sample"])
        for c in clips.to_pylist()
    ]
    annotator = CodesConfig(kind="codes", tokenizer=tokenizer_uri).build()
    return annotator.annotate(ClipBatch(clips, audio, [RATE_HZ] * len(audio)))
