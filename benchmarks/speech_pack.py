"""Packs of the real speech beside the checkout, as ``corpus pack`` writes their shards, for benchmarks of the trainer.

Texts and lengths are real; the codes are drawn, as many as a codec of 25 Hz gives: what they say changes no speed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.ids import digest_json
from manifests.packs import FORMAT_VERSION
from manifests.schema import DOCUMENTS, table_of
from manifests.store import Store, json_bytes, table_bytes
from pipeline.documents import MadeTurn, document_of
from pipeline.shards import TarredDocument, shard_name, write_shard
from tokenization.artifact import CodecFacts, Tokenizer, write_tokenizer
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary

SPEECH = Path(__file__).parents[2] / "shared" / "speech"
NUM_CODES = 6561
FRAME_SAMPLES = 640  # 25 codes a second
SHARD_DOCUMENTS = 500
TEXT_IDS = 1024


@dataclass(frozen=True)
class Clip:
    """Speech with its text."""

    key: str
    text: str
    speaker: str
    audio: Audio  # float32 [S] at MODEL_RATE_HZ
    gender: str | None = None  # female | male


def read_clips(folders: Sequence[str], most: int | None = None, speech: Path = SPEECH) -> list[Clip]:
    """Clips of these folders of ``../shared/speech``, in a drawn order; at most so many."""
    with open(speech / "manifest.jsonl", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["path"].split("/")[0] in folders]
    clips = []
    for place in np.random.default_rng(0).permutation(len(rows))[:most]:
        row = rows[place]
        audio, rate = soundfile.read(speech / row["path"], dtype="float32")
        key = row["path"].removesuffix(".flac").replace("/", "-")
        gender = {"F": "female", "M": "male"}.get(row.get("gender"))
        clips.append(Clip(key, row["transcript"], row["speaker"], resample(audio, rate, MODEL_RATE_HZ), gender))
    return clips


def write_speech_pack(folder: str, clips: Sequence[Clip], *, with_audio: bool) -> tuple[str, str]:
    """A pack with the one split ``train``, a document a clip, and the tokenizer that fits it: their URIs."""
    text = TextTokenizer.train([clip.text for clip in clips], TEXT_IDS)
    facts = CodecFacts("s3", "absent.onnx", "c0de" * 4, 25.0, NUM_CODES, MODEL_RATE_HZ)
    store = Store(f"{folder}/tokenizer")
    tokenizer_id = write_tokenizer(store, text, Vocabulary.small(text.vocab_size), Ratio(), facts, {})
    tokenizer, pack = Tokenizer.open(store.uri), Store(f"{folder}/pack")
    rows = []
    for number, start in enumerate(range(0, len(clips), SHARD_DOCUMENTS)):
        part = [_document(clip, text, with_audio) for clip in clips[start : start + SHARD_DOCUMENTS]]
        rows += write_shard(pack, shard_name("train", number), part)
    pack.write("manifest/train.parquet", table_bytes(table_of(rows, DOCUMENTS)))
    head = {
        "format_version": FORMAT_VERSION,
        "pack_id": digest_json([tokenizer_id, with_audio, [clip.key for clip in clips]]),
        "sample_rate_hz": MODEL_RATE_HZ,
        "splits": ["train"],
        "tokenizer_id": tokenizer_id,
        "vocabulary_hash": tokenizer.vocabulary.layout_hash,
        "codec_fingerprint": tokenizer.codec_fingerprint,
    }
    pack.create("pack.json", json_bytes(head))
    return pack.uri, tokenizer.uri


def _document(clip: Clip, text: TextTokenizer, with_audio: bool) -> TarredDocument:
    draw = np.random.default_rng(len(clip.audio))
    codes = draw.integers(0, NUM_CODES, -(-len(clip.audio) // FRAME_SAMPLES)).astype(np.uint16)
    told: dict[str, Any] = {"text": clip.text, "text_source": "source", "language": "en", "speaker_label": clip.speaker}
    told |= {"clips": [{"tags": {"source": {"gender": clip.gender}}}]}
    turn = MadeTurn(told, clip.audio if with_audio else None, codes, num_text_tokens=len(text.encode(clip.text)))
    return document_of(clip.key, "clip", None, [turn], MODEL_RATE_HZ, clip.speaker)
