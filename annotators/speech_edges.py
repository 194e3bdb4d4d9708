"""Edges of speech moved to where the short-time level rises and falls.

A network that answers each 32 ms tells where speech is, but its edges come late by what it needs to be sure. Within a
small window around an edge the level itself says more.

Shape legend: L levels, one for each ``hop_samples`` of audio.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manifests.spans import Span

# Chosen together with the window by cross-validation: docs/decisions/0009.
QUIET_SHARE = 0.1  # of the way, in dB, from the quietest to the loudest level of the window: below it is no speech
MIN_CONTRAST_DB = 10.0  # with less between them the window shows no edge
LEAST_POWER = 1e-10  # -100 dBFS


def refine_edges(spans: Sequence[Span], powers_L: np.ndarray, hop_samples: int, within_samples: int) -> list[Span]:
    """The flat spans with every edge moved by at most ``within_samples``, up to one hop; as many, in order and disjoint.

    Out of a loud edge the span grows until the level falls below the threshold; from a quiet one it shrinks until the level
    rises above it. ``powers_L`` are mean squares of ``hop_samples`` each. No edge crosses the middle of its span or of
    the pause beside it.
    """
    levels_L = 10.0 * np.log10(np.maximum(powers_L, LEAST_POWER))
    count, reach = len(levels_L), within_samples // hop_samples
    refined = []
    for i, (start, end) in enumerate(spans):
        first = -(-(spans[i - 1].end_sample + start) // (2 * hop_samples)) if i else 0
        stop = (end + spans[i + 1].start_sample) // (2 * hop_samples) if i + 1 < len(spans) else count
        middle = (start + end) // (2 * hop_samples)
        onset = _onset(levels_L, start // hop_samples, reach, first, middle)
        # The end of speech is its onset in the mirror.
        mirrored = _onset(levels_L[::-1], count - -(-end // hop_samples), reach, count - stop, count - middle)
        refined.append(
            Span(
                start if onset is None else onset * hop_samples,
                end if mirrored is None else (count - mirrored) * hop_samples,
            )
        )
    return refined


def _onset(levels_L: np.ndarray, edge: int, reach: int, first: int, stop: int) -> int | None:
    """Index of the first level of the speech that begins near ``edge``, in ``[first, stop)``; None where nothing shows it."""
    low, high = max(first, edge - reach), min(stop, edge + reach)
    if not low <= edge < high:
        return None
    window_L = levels_L[low:high]
    quietest, loudest = float(window_L.min()), float(window_L.max())
    if loudest - quietest < MIN_CONTRAST_DB:
        return None
    is_loud_L = window_L > quietest + QUIET_SHARE * (loudest - quietest)
    if is_loud_L[edge - low]:
        quiet = np.flatnonzero(~is_loud_L[: edge - low])
        return low + int(quiet[-1]) + 1 if len(quiet) else low
    loud = np.flatnonzero(is_loud_L[edge - low :])
    return edge + int(loud[0]) if len(loud) else None
