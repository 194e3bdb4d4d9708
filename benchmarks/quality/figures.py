"""A figure and how sure it is, and the section of docs/quality.md that a topic becomes.

Intervals are of 95 %. Shares of independent items: Wilson's score interval (Wilson, JASA 1927). Ratios of sums (error
rates) and other statistics: percentile bootstrap over items (Efron and Tibshirani 1993), 2,000 draws with a fixed seed;
an item is a clip, a recording or a speaker, whatever is independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Z = 1.959964  # of a 95 % interval
NUM_DRAWS = 2000
FEWEST_ITEMS = 30  # no claim on a label with fewer


@dataclass(frozen=True)
class Figure:
    """One measured number. ``unit`` is "%", "s", "Hz", ... and only says how it is printed; a share is kept as 0 to 1."""

    name: str
    value: float | None  # None: abstained on everything, or nothing to measure
    low: float | None
    high: float | None
    num_items: int
    items: str  # what was counted: clips, recordings, pairs, ...
    unit: str = "%"
    note: str = ""  # settings, and what to know before trusting it

    def cells(self) -> list[str]:
        interval = "–" if self.low is None or self.high is None else f"{self._text(self.low)} to {self._text(self.high)}"
        return [self.name, self._text(self.value), interval, f"{self.num_items} {self.items}", self.note]

    def _text(self, value: float | None) -> str:
        if value is None or math.isnan(value):
            return "–"
        return f"{100 * value:.1f} %" if self.unit == "%" else f"{value:.3g} {self.unit}".strip()


@dataclass(frozen=True)
class Section:
    """What a topic says in docs/quality.md: prose that explains, figures, and tables of its own (Markdown)."""

    title: str
    prose: str
    figures: list[Figure] = field(default_factory=list)
    details: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(row: dict[str, Any]) -> Section:
        return Section(**{**row, "figures": [Figure(**figure) for figure in row["figures"]]})


def share(name: str, hits: Sequence[bool] | np.ndarray, items: str, note: str = "") -> Figure:
    """The share of independent items that hit, with Wilson's interval."""
    count, number = int(np.sum(hits)), len(hits)
    if not number:
        return Figure(name, None, None, None, 0, items, note=note)
    low, high = wilson(count, number)
    return Figure(name, count / number, low, high, number, items, note=note)


def wilson(count: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of ``count`` hits in ``number`` > 0 items."""
    p = count / number
    middle = p + Z**2 / (2 * number)
    half = Z * math.sqrt(p * (1 - p) / number + Z**2 / (4 * number**2))
    return max(0.0, (middle - half) / (1 + Z**2 / number)), min(1.0, (middle + half) / (1 + Z**2 / number))


def ratio(name: str, parts: Sequence[float], wholes: Sequence[float], items: str, note: str = "") -> Figure:
    """Sum of parts over sum of wholes, as of an error rate, with a bootstrap over the items."""
    pairs = np.column_stack([np.asarray(parts, float), np.asarray(wholes, float)])

    def pooled(rows: np.ndarray) -> float:
        return float(rows[:, 0].sum() / rows[:, 1].sum()) if rows[:, 1].sum() else math.nan

    return statistic(name, pairs, pooled, items, "%", note)


def statistic(
    name: str, rows: np.ndarray, function: Callable[[np.ndarray], float], items: str, unit: str = "%", note: str = ""
) -> Figure:
    """Any function of rows ``[N, ...]``, one an item, with a percentile bootstrap over the rows."""
    if not len(rows):
        return Figure(name, None, None, None, 0, items, unit, note)
    random = np.random.default_rng(0)
    drawn = [function(rows[random.integers(0, len(rows), len(rows))]) for _ in range(NUM_DRAWS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Figure(name, float(function(rows)), float(low), float(high), len(rows), items, unit, note)
