"""Tallies of an audit: sums by group, distinct values, statuses of layers. ``manifests.audit.plan`` puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.recipe import Band
from manifests.audit.slices import Coded, SliceColumns, combined
from manifests.sketches import DistinctSketch

SUMS = ("num_clips", "clip_s", "speech_s")
HELD_GROUPS = 1 << 18  # rows of sums that may wait to be put together


class SliceTally(Protocol):
    """One thing that is counted. Picklable, and empty at the start."""

    @property
    def columns(self) -> Sequence[str]:
        """Full names of the columns that it needs."""

    def add(self, slice_: SliceColumns) -> None:
        """Count a slice."""

    def merge(self, other: Any) -> None:
        """Count what another of its kind has counted over later rows."""


def banded(values: np.ndarray, band: Band) -> Coded:
    """In which band each value lies; null where there is none."""
    codes = np.searchsorted(np.asarray(band.edges), values, side="right").astype(np.int64)
    codes[np.isnan(values)] = len(band.labels)
    return Coded(codes, pa.array([*band.labels, None], pa.string()))


class Totals:
    """Clips and seconds of all rows."""

    columns: Sequence[str] = ()

    def __init__(self) -> None:
        self.num_clips, self.clip_s, self.speech_s = 0, 0.0, 0.0

    def add(self, slice_: SliceColumns) -> None:
        self.num_clips += slice_.num_rows
        self.clip_s += float(slice_.seconds.sum())
        self.speech_s += float(slice_.speech_seconds.sum())

    def merge(self, other: Self) -> None:
        self.num_clips += other.num_clips
        self.clip_s += other.clip_s
        self.speech_s += other.speech_s


class GroupSums:
    """Clips and seconds by the values of some columns, or of bands; exact, with a row a group."""

    def __init__(self, keys: Sequence[str], bands: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)
        self.columns = [name for name in keys if name not in bands]
        self._parts: list[pa.Table] = []
        self._held = 0

    def add(self, slice_: SliceColumns) -> None:
        places, values = combined([slice_.coded(name) for name in self.keys])
        num = len(values[0])
        counts = np.bincount(places, minlength=num)
        seen = np.flatnonzero(counts)
        sums = [counts, *(np.bincount(places, weights, num) for weights in (slice_.seconds, slice_.speech_seconds))]
        taken = pa.array(seen)
        self._hold(pa.table([*(v.take(taken) for v in values), *(s[seen] for s in sums)], names=self._names()))

    def merge(self, other: Self) -> None:
        for part in other._parts:
            self._hold(part)

    def rows(self) -> pa.Table:
        """Key columns ``key_0``, … (null is a key), ``num_clips``, ``clip_s``, ``speech_s``; most hours first."""
        self._put_together()
        if not self._parts:
            kinds = [pa.string()] * len(self.keys) + [pa.int64(), pa.float64(), pa.float64()]
            return pa.table([pa.nulls(0, kind) for kind in kinds], names=self._names())
        order = [("clip_s", "descending"), *((name, "ascending") for name in self._names()[: len(self.keys)])]
        return self._parts[0].sort_by(order)

    def __getstate__(self) -> dict[str, Any]:
        self._put_together()
        return self.__dict__

    def _names(self) -> list[str]:
        return [*(f"key_{place}" for place in range(len(self.keys))), *SUMS]

    def _hold(self, part: pa.Table) -> None:
        self._parts.append(part)
        self._held += part.num_rows
        if self._held > max(HELD_GROUPS, 2 * self._parts[0].num_rows):
            self._put_together()

    def _put_together(self) -> None:
        if len(self._parts) > 1:
            names = self._names()
            # One thread: sums of floats then do not depend on who was first.
            grouped = pa.concat_tables(self._parts).group_by(names[: len(self.keys)], use_threads=False)
            summed = grouped.aggregate([(name, "sum") for name in SUMS]).rename_columns({f"{name}_sum": name for name in SUMS})
            self._parts = [summed.select(names).combine_chunks()]
        self._held = sum(part.num_rows for part in self._parts)


class Distinct:
    """How many different values a column has, by HyperLogLog."""

    def __init__(self, column: str) -> None:
        self.column, self.columns = column, [column]
        self._sketch = DistinctSketch()

    def add(self, slice_: SliceColumns) -> None:
        self._sketch.add(slice_.table[self.column])

    def merge(self, other: Self) -> None:
        self._sketch.merge(other._sketch)

    def figures(self) -> dict[str, Any]:
        """The estimate with its 95 % bounds."""
        low, high = self._sketch.bounds(2)
        return {"column": self.column, "num": self._sketch.estimate, "num_low": low, "num_high": high}


class LayerStatus:
    """Rows and seconds of a layer by status (null: not made), its errors by code, and values that its columns have."""

    def __init__(self, layer: str, measured: Sequence[str]) -> None:
        self.layer, self.measured = layer, tuple(measured)
        self.columns = [f"{layer}.status", f"{layer}.error", *measured]
        self.statuses: dict[str, list[float]] = {}
        self.errors: dict[str, int] = {}
        self.num_known = dict.fromkeys(measured, 0)

    def add(self, slice_: SliceColumns) -> None:
        codes, values = slice_.coded(f"{self.layer}.status")
        counts = np.bincount(codes, minlength=len(values))
        seconds = np.bincount(codes, slice_.seconds, len(values))
        for status, num, time_s in zip(values.to_pylist(), counts.tolist(), seconds.tolist(), strict=True):
            self._count(status or "not_made", num, time_s)
        errors = slice_.table[f"{self.layer}.error"]
        if errors.null_count < len(errors):
            found = pc.value_counts(pc.list_element(pc.split_pattern(errors.drop_null(), ":", max_splits=1), 0))
            for row in found.to_pylist():
                self.errors[row["values"]] = self.errors.get(row["values"], 0) + row["counts"]
        for name in self.measured:
            column = slice_.table[name]
            num_nan = int(np.isnan(slice_.floats(name)).sum()) if pa.types.is_floating(column.type) else column.null_count
            self.num_known[name] += len(column) - num_nan

    def merge(self, other: Self) -> None:
        for status, (num, time_s) in other.statuses.items():
            self._count(status, int(num), time_s)
        for code, num in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + int(num)
        for name, num in other.num_known.items():
            self.num_known[name] += num

    def _count(self, status: str, num: int, time_s: float) -> None:
        if num:
            before = self.statuses.setdefault(status, [0, 0.0])
            before[0] += num
            before[1] += time_s
