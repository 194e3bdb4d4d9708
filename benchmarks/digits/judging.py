"""How many digits of spoken strings a listener gets right.

Words of the reference and of what was heard are aligned with the fewest edits. Right is the share of the reference's words
that are neither replaced nor left out, less one for each word put in: ``1 - word error``, which many insertions bring below 0.
Intervals are of 95 %: percentile bootstrap over strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jiwer
import numpy as np

from manifests.contracts import Audio

NUM_DRAWS = 2000


@dataclass(frozen=True)
class Score:
    """Errors of a listener over strings, and the share of digits that it got right."""

    right: float
    low: float
    high: float
    num_strings: int
    num_words: int
    substitutions: int
    deletions: int
    insertions: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return (
            f"{self.right:.1%} right ({self.low:.1%} to {self.high:.1%}), {self.num_words} words of {self.num_strings} strings: "
            f"{self.substitutions} replaced, {self.deletions} left out, {self.insertions} put in"
        )


def judge(read: Callable[[Audio], str], waves: Iterable[Audio], texts: Sequence[str]) -> Score:
    """The score of ``read``, which says what it hears in float32 audio at 16 kHz, over waves that should say ``texts``."""
    return score([read(wave) for wave in waves], texts)


def score(heard: Sequence[str], texts: Sequence[str]) -> Score:
    """Of what was heard, against what should be said; one of each a string."""
    rows = []
    for said, own in zip(texts, heard, strict=True):
        edits = jiwer.process_words(said, own)
        rows.append([len(said.split()), edits.substitutions, edits.deletions, edits.insertions])
    counts = np.array(rows)
    draws = np.random.default_rng(0).integers(len(counts), size=(NUM_DRAWS, len(counts)))
    low, high = np.percentile(_right(counts[draws].sum(1)), [2.5, 97.5])
    words, *errors = counts.sum(0).tolist()
    return Score(float(_right(counts.sum(0))), float(low), float(high), len(counts), words, *errors)


def _right(counts: np.ndarray) -> np.ndarray:
    """Of counts ``[..., 4]``: words, then the three kinds of errors."""
    return 1.0 - counts[..., 1:].sum(-1) / counts[..., 0]
