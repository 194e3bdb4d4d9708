"""How a number is distributed over clips: counts, moments, extremes, a histogram in clips and in seconds, quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from manifests.audit.recipe import Distribution
from manifests.audit.slices import SliceColumns, bounds_of, edges_of
from manifests.sketches import QuantileSketch

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Spread:
    """The distribution of one column."""

    def __init__(self, distribution: Distribution) -> None:
        self.distribution, self.bounds = distribution, bounds_of(distribution)
        self.column = distribution.column
        self.columns: Sequence[str] = [self.column]
        self.counts = np.zeros(self.bounds[2] + 3, np.int64)  # below, the bins, above, null or NaN
        self.seconds = np.zeros(self.bounds[2] + 3)
        self.num_nulls, self.num_infinite = 0, 0
        self.least, self.most, self.total, self.squares = math.inf, -math.inf, 0.0, 0.0
        self._sketch = QuantileSketch()

    def add(self, slice_: SliceColumns) -> None:
        places = slice_.bins(self.column, self.bounds)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.seconds += np.bincount(places, slice_.seconds, len(self.seconds))
        self.num_nulls += slice_.num_nulls(self.column)
        values = slice_.floats(self.column)
        finite = values[np.isfinite(values)]
        self.num_infinite += int(np.isinf(values).sum())
        if len(finite):
            self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))
            self.total += float(finite.sum())
            self.squares += float(finite @ finite)
            self._sketch.add(finite)

    def merge(self, other: Self) -> None:
        self.counts += other.counts
        self.seconds += other.seconds
        self.num_nulls += other.num_nulls
        self.num_infinite += other.num_infinite
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.total += other.total
        self.squares += other.squares
        self._sketch.merge(other._sketch)

    def figures(self) -> dict[str, Any]:
        """As ``manifests.audit.figures`` documents ``distributions``."""
        num_missing = int(self.counts[-1])
        num = int(self.counts.sum()) - num_missing - self.num_infinite
        mean = self.total / num if num else None
        std = math.sqrt(max(0.0, self.squares / num - mean**2)) if mean is not None else None
        return {
            "column": self.column,
            "title": self.distribution.title,
            "num_clips": num,
            "num_null": self.num_nulls,
            "num_not_finite": num_missing - self.num_nulls + self.num_infinite,
            "min": self.least if num else None,
            "max": self.most if num else None,
            "mean": mean,
            "std": std,
            "quantiles": {f"p{round(q * 100):02d}": self._sketch.quantile(q) for q in QUANTILES},
            "quantile_rank_error": self._sketch.rank_error,
            "edges": edges_of(self.bounds).tolist(),
            "num_clips_by_bin": self.counts[1:-2].tolist(),
            "clip_h_by_bin": (self.seconds[1:-2] / 3600).tolist(),
            "num_below": int(self.counts[0]),
            "num_above": int(self.counts[-2]),
        }
