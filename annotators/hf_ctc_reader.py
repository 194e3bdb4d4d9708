"""Text and words by greedy decoding of a transformers CTC network.

Shape legend: S samples, F frames, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from annotators.asr_schema import Alignment
from annotators.ctc_network import DELIMITER, CtcNetwork, timed
from annotators.heard_windows import Heard
from annotators.monotone_path import LabelSpan
from annotators.scripts import SPACELESS
from manifests.contracts import Audio

WORD_START = "▁"  # first in a word's first piece, in vocabularies of SentencePiece
SMALLEST_POSTERIOR = 1e-10


class Spoken(NamedTuple):
    """A label that was heard, and where."""

    label: str
    span: LabelSpan


class CtcReader:
    """A recogniser: the likeliest label of each frame, without repeats and blanks (greedy decoding, no language model)."""

    def __init__(self, network: CtcNetwork, batch_size: int, *, with_words: bool) -> None:
        self._network, self._batch_size, self._with_words = network, batch_size, with_words

    def read(self, windows: list[Audio], languages: list[str | None]) -> list[tuple[Heard, Alignment | None]]:
        """What each window says; a language is kept as given, the network has but one."""
        posteriors = self._network.log_probs(windows, self._batch_size)
        return [self._heard(*parts) for parts in zip(windows, languages, posteriors, strict=True)]

    def _heard(self, audio_S: Audio, language: str | None, log_probs_FV: np.ndarray) -> tuple[Heard, Alignment | None]:
        spoken = likeliest_labels(log_probs_FV, self._network.labels)
        step = len(audio_S) / len(log_probs_FV)
        words = [
            timed("".join(part.label for part in parts), [part.span for part in parts], step)
            for parts in split(spoken, language in SPACELESS)
        ]
        text = ("" if language in SPACELESS else " ").join(word.word for word in words)
        logprob = sum(math.log(max(part.span.prob, SMALLEST_POSTERIOR)) for part in spoken)
        return Heard(text, logprob, len(spoken), language), Alignment(words) if self._with_words else None


def likeliest_labels(log_probs_FV: np.ndarray, labels: Mapping[int, str]) -> list[Spoken]:
    """The likeliest label of each frame with repeats merged; blanks, and what else ``labels`` lacks, are left out."""
    best_F = log_probs_FV.argmax(axis=1)
    edges = np.flatnonzero(np.diff(best_F, prepend=-1, append=-1)).tolist()
    spoken = []
    for start, end in itertools.pairwise(edges):
        number = int(best_F[start])
        if number in labels:
            spoken.append(Spoken(labels[number], LabelSpan(start, end, float(np.exp(log_probs_FV[start:end, number]).mean()))))
    return spoken


def split(spoken: Sequence[Spoken], is_spaceless: bool) -> list[list[Spoken]]:
    """The labels of each word: between delimiters, from a label that starts a word, or one by one where there are no spaces."""
    words: list[list[Spoken]] = [[]]
    for part in spoken:
        if part.label == DELIMITER or part.label.isspace():
            words.append([])
            continue
        if is_spaceless or part.label.startswith(WORD_START):
            words.append([])
        words[-1].append(part._replace(label=part.label.removeprefix(WORD_START)))
    return [parts for parts in words if any(part.label for part in parts)]
