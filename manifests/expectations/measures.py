"""What a rule measures of the rows in its scope, in one pass: each measure says on which side of a bound it lies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.conditions import Condition, IsNull
from manifests.selection import Length
from manifests.sketches import DistinctSketch, QuantileSketch

STATISTICS = ("mean", "min", "max", "sum")
SIGMAS = 3  # bounds of a distinct count hold with 99.7 %


class Measure(Protocol):
    """Picklable; empty when it is handed to a fold."""

    @property
    def columns(self) -> Sequence[str]:
        """Full names of the columns that it reads."""

    def add(self, table: pa.Table) -> None: ...

    def merge(self, other: Self) -> None: ...

    @property
    def value(self) -> float | None:
        """The value, or the best guess at it; None where there was nothing to measure."""

    @property
    def error(self) -> str:
        """How far the value may be off, for people; empty where it is exact."""

    def order(self, bound: float) -> int | None:
        """-1, 0 or 1: the true value lies below, at or above the bound. None where the sketch cannot tell. Not of nothing."""

    def too_low(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        """The rows that make the value fall below the bound (bool, nulls are not among them); None where no rows do."""

    def too_high(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        """The rows that make it rise above, likewise."""


class Exact(ABC):
    """A measure that knows its value."""

    error = ""

    @property
    @abstractmethod
    def value(self) -> float | None:
        """The value; None where there was nothing to measure."""

    def order(self, bound: float) -> int | None:
        value = self.value
        # A sum of both infinities is not a number, and on no side of anything.
        return None if value is None or math.isnan(value) else int(value > bound) - int(value < bound)


class Amount(Exact):
    """Rows or hours that meet a condition (all of them without one), or their share in all rows or hours."""

    def __init__(self, condition: Condition | None, length: Length | None, *, is_share: bool) -> None:
        """With a ``length`` hours are counted, without one rows."""
        self._condition, self._length, self._is_share = condition, length, is_share
        self._met, self._all = 0.0, 0.0

    @property
    def columns(self) -> Sequence[str]:
        return (*(self._condition.columns if self._condition else ()), *(self._length.columns if self._length else ()))

    def add(self, table: pa.Table) -> None:
        mask = None if self._condition is None else pc.fill_null(self._condition.mask(table), False)
        if self._length is None:
            every, met = float(table.num_rows), float(table.num_rows if mask is None else pc.sum(mask).as_py() or 0)
        else:
            hours = pc.divide(self._length.seconds(table), 3600.0)
            every, met = _sum(hours), _sum(hours if mask is None else hours.filter(mask))
        self._all += every
        self._met += met

    def merge(self, other: Self) -> None:
        self._all += other._all
        self._met += other._met

    @property
    def value(self) -> float | None:
        if not self._is_share:
            return self._met
        return self._met / self._all if self._all else None

    def too_low(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        if self._condition is None or not self._is_share:
            return None
        return pc.invert(pc.fill_null(self._condition.mask(table), False))

    def too_high(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return None if self._condition is None else self._condition.mask(table)


def null_share(column: str) -> Amount:
    """The share of rows in which the column is null."""
    return Amount(IsNull(column), None, is_share=True)


class Statistic(Exact):
    """One of STATISTICS over the values that are known."""

    def __init__(self, kind: str, column: str) -> None:
        self._kind, self._column = kind, column
        self._num, self._sum, self._min, self._max = 0, 0.0, math.inf, -math.inf

    @property
    def columns(self) -> Sequence[str]:
        return (self._column,)

    def add(self, table: pa.Table) -> None:
        values = known(table[self._column])
        if len(values):
            self._num += len(values)
            with np.errstate(invalid="ignore"):  # of both infinities
                self._sum += float(values.sum())
            self._min, self._max = min(self._min, float(values.min())), max(self._max, float(values.max()))

    def merge(self, other: Self) -> None:
        self._num += other._num
        self._sum += other._sum
        self._min, self._max = min(self._min, other._min), max(self._max, other._max)

    @property
    def value(self) -> float | None:
        if not self._num:
            return None
        return {"mean": self._sum / self._num, "sum": self._sum, "min": self._min, "max": self._max}[self._kind]

    def too_low(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return below(table[self._column], bound) if self._kind == "min" else None

    def too_high(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return above(table[self._column], bound) if self._kind == "max" else None


class Quantile:
    """The smallest value that a share of the known values is not above.

    The sketch tells the value; on which side of a bound it lies follows from counting, and is exact.
    """

    def __init__(self, share: float, column: str, bounds: Sequence[float]) -> None:
        """``bounds`` are those that ``order`` may be asked for."""
        self._share, self._column = share, column
        self._sketch = QuantileSketch()
        self._below, self._upto = dict.fromkeys(bounds, 0), dict.fromkeys(bounds, 0)

    @property
    def columns(self) -> Sequence[str]:
        return (self._column,)

    def add(self, table: pa.Table) -> None:
        values = known(table[self._column])
        self._sketch.add(values)
        for bound in self._below:
            self._below[bound] += int(np.count_nonzero(values < bound))
            self._upto[bound] += int(np.count_nonzero(values <= bound))

    def merge(self, other: Self) -> None:
        self._sketch.merge(other._sketch)
        for bound in self._below:
            self._below[bound] += other._below[bound]
            self._upto[bound] += other._upto[bound]

    @property
    def value(self) -> float | None:
        return self._sketch.quantile(self._share)

    @property
    def error(self) -> str:
        return f"rank within {self._sketch.rank_error:.2%}" if self._sketch.rank_error else ""

    def order(self, bound: float) -> int | None:
        # As many values, at least one, are at or below the quantile; a product of floats may lie a hair above a whole number.
        needed = max(1, math.ceil(self._share * self._sketch.num_values - 1e-9))
        if self._below[bound] >= needed:
            return -1
        return 0 if self._upto[bound] >= needed else 1

    def too_low(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return below(table[self._column], bound)

    def too_high(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return above(table[self._column], bound)


class Distinct:
    """How many distinct values there are, within the bounds of a sketch."""

    def __init__(self, column: str) -> None:
        self._column, self._sketch = column, DistinctSketch()

    @property
    def columns(self) -> Sequence[str]:
        return (self._column,)

    def add(self, table: pa.Table) -> None:
        self._sketch.add(table[self._column])

    def merge(self, other: Self) -> None:
        self._sketch.merge(other._sketch)

    @property
    def value(self) -> float | None:
        return self._sketch.estimate

    @property
    def error(self) -> str:
        low, high = self._sketch.bounds(SIGMAS)
        return "" if low >= high else f"between {low:,} and {high:,}"

    def order(self, bound: float) -> int | None:
        low, high = self._sketch.bounds(SIGMAS)
        if high < bound or low > bound:
            return -1 if high < bound else 1
        return 0 if low >= high else None

    def too_low(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return None

    def too_high(self, table: pa.Table, bound: float) -> pa.ChunkedArray | None:
        return None


def known(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values that are neither null nor NaN, float64. An infinite one is a value: no bound may be kept by what is past all of them."""
    values = pc.cast(column, pa.float64()).drop_null().to_numpy()
    return values[~np.isnan(values)]


def below(column: pa.ChunkedArray, bound: float) -> pa.ChunkedArray:
    """Bool a value; null where it is. Yes counts as 1, as in ``known``."""
    return pc.less(pc.cast(column, pa.float64()), bound)


def above(column: pa.ChunkedArray, bound: float) -> pa.ChunkedArray:
    return pc.greater(pc.cast(column, pa.float64()), bound)


def _sum(column: pa.ChunkedArray) -> float:
    return float(pc.sum(column).as_py() or 0.0)
