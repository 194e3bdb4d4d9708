"""The columns that every speech recogniser adds, so that one filter or one report works on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.schema import field

MIN_CLIP_SAMPLES = MODEL_RATE_HZ // 10  # under 0.1 s there is no word; recognisers abstain
SILENT_PEAK = 1e-4  # -80 dBFS

WORD = pa.struct(
    [
        field("word", pa.string(), "the word as recognised"),
        field("start_sample", pa.int64(), "first sample at 16 kHz, relative to the start of the clip"),
        field("end_sample", pa.int64(), "one past the last sample at 16 kHz, relative to the start of the clip"),
        field("confidence", pa.float32(), "the recogniser's posterior of the word, 0 to 1; null where it gives none"),
    ]
)

ASR_ADDS = pa.schema(
    [
        field("text", pa.string(), "recognised text; empty where no word was heard"),
        field("language", pa.string(), "ISO 639-1 of the text: detected, or the only one the recogniser was set to"),
        field(
            "words", pa.list_(WORD), "words with samples at 16 kHz relative to the clip start; null where they are not aligned"
        ),
        field(
            "confidence",
            pa.float32(),
            "mean word posterior, 0 to 1; where words are not aligned, the geometric mean of the token probabilities",
        ),
        field("avg_logprob", pa.float32(), "mean natural log probability of the recogniser's own units (words or tokens)"),
    ]
)


class Word(NamedTuple):
    """One recognised word; samples at 16 kHz, relative to the start of the clip."""

    word: str
    start_sample: int
    end_sample: int
    confidence: float | None


def asr_row(
    text: str, language: str | None, words: Sequence[Word] | None, confidence: float | None, avg_logprob: float | None
) -> dict[str, Any]:
    """One row of ``ASR_ADDS``; probabilities that rounding pushed past 0 or 1 are put back."""
    return {
        "text": text,
        "language": language,
        "words": None if words is None else [word._asdict() for word in words],
        "confidence": None if confidence is None else min(1.0, max(0.0, confidence)),
        "avg_logprob": avg_logprob if avg_logprob is not None and math.isfinite(avg_logprob) else None,
    }


def is_silent(audio_S: Audio) -> bool:
    """No sample above -80 dBFS. Recognisers write words into digital silence with confidence 1; they are not asked."""
    return float(np.abs(audio_S).max(initial=0.0)) < SILENT_PEAK


SILENT_ROW = asr_row("", None, [], None, None)
