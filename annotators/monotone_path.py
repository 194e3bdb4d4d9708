"""The best way through states that follow one another: what forced alignment is, for letters and for attention alike.

Shape legend: F frames, N states, V vocabulary, L labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LabelSpan(NamedTuple):
    """Frames ``[start, end)`` of one label, and the mean of its posterior there."""

    start: int
    end: int
    prob: float


def best_path(scores_FN: np.ndarray, may_skip_N: np.ndarray | None = None) -> np.ndarray | None:
    """The state of each frame, int ``[F]``, that maximises the sum of scores (Viterbi 1967).

    A frame stays in the state before it, takes the next one, or the one after that where ``may_skip_N`` says that the state
    may be reached so. The path starts in the first state and ends in the last; with ``may_skip_N`` it may also start in the
    second and end in the last but one. None where there are too few frames to reach the end.
    """
    num_frames, num_states = scores_FN.shape
    ends = 1 if may_skip_N is None else min(2, num_states)
    if not num_frames:
        return None
    total_N = np.full(num_states, -np.inf)
    total_N[:ends] = scores_FN[0, :ends]
    moves_FN = np.zeros((num_frames, num_states), np.int8)
    options_3N = np.full((3, num_states), -np.inf)
    for frame in range(1, num_frames):
        options_3N[0] = total_N
        options_3N[1, 1:] = total_N[:-1]
        if may_skip_N is not None:
            options_3N[2, 2:] = np.where(may_skip_N[2:], total_N[:-2], -np.inf)
        moves_FN[frame] = options_3N.argmax(axis=0)
        total_N = options_3N.max(axis=0) + scores_FN[frame]
    state = num_states - ends + int(total_N[-ends:].argmax())
    if not np.isfinite(total_N[state]):
        return None
    path_F = np.empty(num_frames, np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path_F[frame] = state
        state -= int(moves_FN[frame, state])
    return path_F


def label_spans(log_probs_FV: np.ndarray, labels_L: list[int], blank: int) -> list[LabelSpan] | None:
    """Where each label lies on the best CTC path (Graves et al., ICML 2006); None where the labels need more frames.

    ``log_probs_FV``: natural log posteriors. Labels are ids other than ``blank``; equal neighbours need a blank between them.
    """
    if not labels_L:
        return []
    states_N = np.full(2 * len(labels_L) + 1, blank)
    states_N[1::2] = labels_L
    may_skip_N = np.zeros(len(states_N), bool)
    may_skip_N[3::2] = states_N[3::2] != states_N[1:-2:2]
    path_F = best_path(log_probs_FV[:, states_N].astype(np.float64), may_skip_N)
    if path_F is None:
        return None
    spans = []
    for position, label in enumerate(labels_L):
        frames = np.flatnonzero(path_F == 2 * position + 1)
        spans.append(LabelSpan(int(frames[0]), int(frames[-1]) + 1, float(np.exp(log_probs_FV[frames, label]).mean())))
    return spans
