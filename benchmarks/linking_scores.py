"""How well found groups are the true ones: over pairs, and B-cubed (Bagga and Baldwin, LREC 1998)."""

from __future__ import annotations

import numpy as np

# Columns of ``by_speaker``.
RIGHT, LINKED, TRUE, PRECISION, RECALL, ITEMS = range(6)


def by_speaker(truth_I: np.ndarray, found_I: np.ndarray) -> np.ndarray:
    """Float64 ``[S, 6]``, a row a true speaker: pairs of its items that were linked; pairs that were linked and hold one of
    its items, a half for one with another speaker's; pairs of its items; sums of its items' B-cubed precision and recall;
    its items. Sums over speakers give the corpus' figures; in counts alone, so that a million items need no matrix.
    """
    truth_I, found_I = (np.unique(labels, return_inverse=True)[1] for labels in (truth_I, found_I))
    size_S, size_G = np.bincount(truth_I), np.bincount(found_I)
    cells, count_C = np.unique(truth_I * np.int64(len(size_G)) + found_I, return_counts=True)
    speaker_C, group_C = cells // len(size_G), cells % len(size_G)
    rows = np.zeros((len(size_S), 6))
    np.add.at(rows[:, RIGHT], speaker_C, count_C * (count_C - 1) / 2)
    np.add.at(rows[:, LINKED], speaker_C, count_C * (size_G[group_C] - 1) / 2)
    np.add.at(rows[:, PRECISION], speaker_C, count_C * (count_C / size_G[group_C]))
    np.add.at(rows[:, RECALL], speaker_C, count_C * (count_C / size_S[speaker_C]))
    rows[:, TRUE], rows[:, ITEMS] = size_S * (size_S - 1) / 2, size_S
    return rows


def pair_scores(rows: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of pairs. Of no pairs at all, 1."""
    right, linked, true = rows[:, [RIGHT, LINKED, TRUE]].sum(axis=0)
    return _scores(right / linked if linked else 1.0, right / true if true else 1.0)


def item_scores(rows: np.ndarray) -> tuple[float, float, float]:
    """B-cubed precision, recall and F1."""
    precision, recall, items = rows[:, [PRECISION, RECALL, ITEMS]].sum(axis=0)
    return _scores(precision / items, recall / items)


def _scores(precision: float, recall: float) -> tuple[float, float, float]:
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0
