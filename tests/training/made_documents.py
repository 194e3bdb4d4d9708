"""Documents of every kind, made as the packer makes them: the row of the manifest, and what a reader finds in the shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests.contracts import MODEL_RATE_HZ
from manifests.packs import Document, Turn
from pipeline.documents import MadeTurn, document_of
from pipeline.shards import TarredDocument
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.entries import Entry, entry_of
from training.layouts import Layouts
from training.prompts import Prompts

BYTES = TextTokenizer.train([], 256)  # a token a byte
NO_PROMPTS = Prompts(asr="", tts="", s2tt="", t2st="", s2st="", conversation="", captioning={"en": "", "zh": ""})


@dataclass(frozen=True)
class Made:
    """A document with its row in the manifest."""

    row: dict[str, Any]
    document: Document
    tarred: TarredDocument

    def entry(self, text: TextTokenizer = BYTES) -> Entry:
        return entry_of(self.row, text)


def turn(
    text: str | None = None, num_samples: int | None = None, num_codes: int | None = None, seed: int = 0, **facts: Any
) -> MadeTurn:
    """A turn with noise for audio and drawn codes."""
    draw = np.random.default_rng(seed)
    audio = None if num_samples is None else draw.normal(0, 0.05, num_samples).astype(np.float32)
    codes = None if num_codes is None else draw.integers(0, 6561, num_codes).astype(np.uint16)
    return MadeTurn({"text": text, **facts}, audio, codes)


def made(kind: str, turns: Sequence[MadeTurn], relation: str | None = None, key: str = "k") -> Made:
    """What a pack holds of the turns."""
    tarred = document_of(key, kind, relation, turns, MODEL_RATE_HZ)
    row = {"shard": "train-000000.tar", **tarred.row}
    read = tuple(
        Turn(*(t.facts.get(name) for name in ("role", "text", "language", "speaker_label")), t.audio, t.codes, t.facts)
        for t in turns
    )
    return Made(row, Document(key, {}, read, relation), tarred)


def clip(text: str = "hi", num_samples: int | None = 16_000, num_codes: int | None = 25, key: str = "k", **facts: Any) -> Made:
    return made("clip", [turn(text, num_samples, num_codes, **facts)], key=key)


def pair(source: MadeTurn, target: MadeTurn, key: str = "k") -> Made:
    return made("pair", [source, target], "translation", key)


def conversation(*texts: str, num_samples: int = 8000, num_codes: int = 12, key: str = "k") -> Made:
    """Turns of human and assistant in alternation."""
    roles = ("human", "assistant")
    turns = [turn(text, num_samples, num_codes, seed, role=roles[seed % 2]) for seed, text in enumerate(texts)]
    return made("conversation", turns, "reply", key)


def continuation(*texts: str, num_samples: int = 8000, num_codes: int = 12, key: str = "k") -> Made:
    turns = [turn(text, num_samples, num_codes, seed) for seed, text in enumerate(texts)]
    return made("continuation", turns, "continuation", key)


def layouts(
    prompts: Prompts = NO_PROMPTS, text: TextTokenizer = BYTES, vocabulary: Vocabulary | None = None, ratio: Ratio | None = None
) -> Layouts:
    """Over a token a byte and without prompts, unless told otherwise."""
    return Layouts(text, vocabulary or Vocabulary.small(text.vocab_size), ratio or Ratio(), prompts)
