"""The clips at either end of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from manifests.audit.rules import CLIP_ID, UNIT, rows_at
from manifests.audit.slices import SliceColumns

Ranked = tuple[float, dict[str, Any]]


@dataclass
class Ends:
    """Tally of the ``most`` lowest and highest values of a column, of equal ones the first."""

    column: str
    most: int
    low: list[Ranked] = field(default_factory=list)
    high: list[Ranked] = field(default_factory=list)  # by the negated value

    @property
    def columns(self) -> Sequence[str]:
        return [CLIP_ID, UNIT, self.column]

    def add(self, slice_: SliceColumns) -> None:
        if self.most:
            values = slice_.floats(self.column)
            self.low = self._lowest(self.low, self._of(slice_, values, self.low))
            self.high = self._lowest(self.high, self._of(slice_, -values, self.high))

    def merge(self, other: Self) -> None:
        self.low, self.high = self._lowest(self.low, other.low), self._lowest(self.high, other.high)

    def figures(self) -> list[dict[str, Any]]:
        """A row an end, as ``manifests.audit.figures`` documents ``outliers``."""
        return [
            {"column": self.column, "end": end, "rows": [row for _, row in ranked]}
            for end, ranked in (("low", self.low), ("high", self.high))
        ]

    def _of(self, slice_: SliceColumns, values: np.ndarray, held: list[Ranked]) -> list[Ranked]:
        """Those of a slice that may be among the lowest."""
        with np.errstate(invalid="ignore"):
            bound = held[-1][0] if len(held) == self.most else np.inf
            places = np.flatnonzero(values < bound)  # NaN is below nothing
        if len(places) > self.most:
            # All that are equal to the last of them, since the first in order counts.
            last = np.partition(values[places], self.most - 1)[self.most - 1]
            places = places[values[places] <= last]
            places = places[np.argsort(values[places], kind="stable")[: self.most]]
        return list(zip(values[places].tolist(), rows_at(slice_, places, [self.column]), strict=True)) if len(places) else []

    def _lowest(self, one: list[Ranked], two: list[Ranked]) -> list[Ranked]:
        return sorted([*one, *two], key=lambda ranked: ranked[0])[: self.most]
