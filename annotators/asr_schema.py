"""The columns that every speech recogniser adds, so that one filter or one report works on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from annotators.scripts import SPACELESS
from annotators.silence import is_silent
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.schema import field

MIN_CLIP_SAMPLES = MODEL_RATE_HZ // 10  # under 0.1 s there is no word; recognisers abstain
WINDOW_SAMPLES = 30 * MODEL_RATE_HZ  # what Whisper hears at once; longer clips are heard in windows of it

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
        field("language_prob", pa.float32(), "probability of the language where it was detected, 0 to 1; null where it was set"),
        field(
            "words",
            pa.list_(WORD),
            "words that have a time, with samples at 16 kHz relative to the clip start; a word without one is in the text "
            "alone; null where the text has words and none of them has a time",
        ),
        field(
            "num_unaligned_words",
            pa.int32(),
            "words of the text that have no time (characters where a language has no spaces); null where none were asked for",
        ),
        field("align_error", pa.string(), "why words have no time, e.g. more letters than frames; null where nothing failed"),
        field(
            "confidence",
            pa.float32(),
            "mean word posterior, 0 to 1; where words are not aligned, the geometric mean of the token probabilities",
        ),
        field("avg_logprob", pa.float32(), "mean natural log probability of the recogniser's own units (words or tokens)"),
        field(
            "no_speech_prob",
            pa.float32(),
            "the recogniser's own probability that a window holds no speech, the least over the windows; "
            "null where it gives none",
        ),
    ]
)


class Word(NamedTuple):
    """One recognised word; samples at 16 kHz, relative to the start of the clip."""

    word: str
    start_sample: int
    end_sample: int
    confidence: float | None

    def moved(self, num_samples: int) -> Word:
        """The word that many samples later."""
        return self._replace(start_sample=self.start_sample + num_samples, end_sample=self.end_sample + num_samples)


class Alignment(NamedTuple):
    """Where the words of a text lie, in order; how many of its words have no time, and why (None: nothing failed)."""

    words: list[Word]
    num_unaligned: int = 0
    error: str | None = None


def asr_row(
    text: str,
    language: str | None,
    words: Sequence[Word] | None,
    confidence: float | None,
    avg_logprob: float | None,
    *,
    language_prob: float | None = None,
    num_unaligned_words: int | None = None,
    align_error: str | None = None,
    no_speech_prob: float | None = None,
) -> dict[str, Any]:
    """One row of ``ASR_ADDS``; probabilities that rounding pushed past 0 or 1 are put back."""
    return {
        "text": text,
        "language": language,
        "language_prob": _prob(language_prob),
        "words": None if words is None else [word._asdict() for word in words],
        "num_unaligned_words": num_unaligned_words,
        "align_error": align_error,
        "confidence": _prob(confidence),
        "avg_logprob": avg_logprob if avg_logprob is not None and math.isfinite(avg_logprob) else None,
        "no_speech_prob": _prob(no_speech_prob),
    }


def _prob(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))


SILENT_ROW = asr_row("", None, [], None, None, num_unaligned_words=0)


def window_starts(audio_S: Audio) -> list[int]:
    """Starts of the windows of 30 s that have sound in them; no window under 0.1 s."""
    pieces = [(start, audio_S[start : start + WINDOW_SAMPLES]) for start in range(0, len(audio_S), WINDOW_SAMPLES)]
    return [start for start, piece_S in pieces if len(piece_S) >= MIN_CLIP_SAMPLES and not is_silent(piece_S)]


def words_of(text: str, language: str | None) -> list[str]:
    """The words of a text as it stands; its characters in a language without spaces."""
    return list("".join(text.split())) if language in SPACELESS else text.split()
