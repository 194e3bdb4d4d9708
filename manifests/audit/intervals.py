"""Intervals of shares that were found in a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z_95 = 1.959963984540054


class Share(NamedTuple):
    """A share with its 95 % interval; all of it None where nothing was looked at."""

    value: float | None
    low: float | None
    high: float | None


def wilson(num_hits: float, num: float, z: float = Z_95) -> Share:
    """Share of hits with its score interval (Wilson, JASA 22, 1927); ``num`` may be an effective size, no whole number."""
    if num <= 0:
        return Share(None, None, None)
    value = num_hits / num
    shrink = 1.0 + z * z / num
    centre = (value + z * z / (2.0 * num)) / shrink
    half = z * math.sqrt(value * (1.0 - value) / num + z * z / (4.0 * num * num)) / shrink
    return Share(value, max(0.0, centre - half), min(1.0, centre + half))


def stratified(strata: Sequence[tuple[float, float, float]]) -> Share:
    """Share over strata of (weight, hits, number looked at), each counting by its weight.

    The interval is Wilson's at the effective size of a sample so weighted (Kish, Survey Sampling, 1965): ``1 / sum(w^2 / n)``
    for weights that sum to one. None while a stratum with weight has not been looked at: it may hold anything.
    """
    total = sum(weight for weight, _, _ in strata)
    if total <= 0 or any(weight > 0 and num <= 0 for weight, _, num in strata):
        return Share(None, None, None)
    shares = [(weight / total, hits / num, num) for weight, hits, num in strata if weight > 0]
    effective = 1.0 / sum(weight * weight / num for weight, _, num in shares)
    return wilson(sum(weight * value for weight, value, _ in shares) * effective, effective)
