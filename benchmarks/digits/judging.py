"""How many digits of spoken strings a listener gets right.

Words of the reference and of what was heard are aligned with the fewest edits. Right is the share of the reference's words
that are neither replaced nor left out, less one for each word put in: ``1 - word error``, which many insertions bring below 0.
Intervals are of 95 %: percentile bootstrap over distinct texts, each with all of its strings: a model that decodes greedily says
equal texts alike, so that strings of one text are no independent items.
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
    num_texts: int  # that differ
    num_words: int
    substitutions: int
    deletions: int
    insertions: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return (
            f"{self.right:.1%} right ({self.low:.1%} to {self.high:.1%}), {self.num_words} words of "
            f"{self.num_strings} strings, {self.num_texts} distinct texts: "
            f"{self.substitutions} replaced, {self.deletions} left out, {self.insertions} put in"
        )


def judge(read: Callable[[Audio], str], waves: Iterable[Audio], texts: Sequence[str]) -> Score:
    """The score of ``read``, which says what it hears in float32 audio at 16 kHz, over waves that should say ``texts``."""
    return score([read(wave) for wave in waves], texts)


def score(heard: Sequence[str], texts: Sequence[str]) -> Score:
    """Of what was heard, against what should be said; one of each a string."""
    rows: dict[str, np.ndarray] = {}
    for said, own in zip(texts, heard, strict=True):
        edits = jiwer.process_words(said, own)
        row = np.array([len(said.split()), edits.substitutions, edits.deletions, edits.insertions])
        rows[said] = rows.get(said, 0) + row
    counts = np.array(list(rows.values()))
    draws = np.random.default_rng(0).integers(len(counts), size=(NUM_DRAWS, len(counts)))
    low, high = np.percentile(_right(counts[draws].sum(1)), [2.5, 97.5])
    words, *errors = counts.sum(0).tolist()
    return Score(float(_right(counts.sum(0))), float(low), float(high), len(texts), len(counts), words, *errors)


def _right(counts: np.ndarray) -> np.ndarray:
    """Of counts ``[..., 4]``: words, then the three kinds of errors."""
    return 1.0 - counts[..., 1:].sum(-1) / counts[..., 0]
