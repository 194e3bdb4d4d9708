"""What a recogniser heard in one window of a clip, and the clip's row from its windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from annotators.asr_schema import Alignment, asr_row
from annotators.scripts import SPACELESS


class Heard(NamedTuple):
    """One window: its text and what it is worth. ``logprob`` is the sum of the natural log probabilities of ``num_tokens``."""

    text: str
    logprob: float
    num_tokens: int
    language: str | None
    language_prob: float | None = None
    no_speech_prob: float | None = None


def clip_row(heard: Sequence[Heard], alignments: Sequence[Alignment] | None) -> dict[str, Any]:
    """The ``ASR_ADDS`` row of a clip from its windows in order.

    ``alignments``: of each window, with samples relative to the start of the clip; None where no words were asked for.
    Confidence is the mean word posterior, or without one the geometric mean of the token probabilities.
    """
    language = heard[0].language
    text = ("" if language in SPACELESS else " ").join(part.text for part in heard if part.text)
    num_tokens = sum(part.num_tokens for part in heard)
    avg_logprob = sum(part.logprob for part in heard) / num_tokens if num_tokens else None
    words = [word for alignment in alignments or () for word in alignment.words]
    unaligned = None if alignments is None else sum(alignment.num_unaligned for alignment in alignments)
    errors = dict.fromkeys(alignment.error for alignment in alignments or () if alignment.error)
    posteriors = [word.confidence for word in words if word.confidence is not None]
    confidence = float(np.mean(posteriors)) if posteriors else None if avg_logprob is None else math.exp(avg_logprob)
    silences = [part.no_speech_prob for part in heard if part.no_speech_prob is not None]
    return asr_row(
        text,
        language,
        words if words or (alignments is not None and not text) else None,
        confidence if text else None,
        avg_logprob,
        language_prob=heard[0].language_prob,
        num_unaligned_words=unaligned,
        align_error="; ".join(errors) or None,
        no_speech_prob=min(silences, default=None),
    )
