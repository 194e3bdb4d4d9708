"""A slice of rows as arrays, each made once for all tallies that need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.recipe import Distribution

DURATION, SPEECH_SHARE = "clip.duration_s", "clip.speech_share"
Bounds = tuple[float, float, int]  # low, high, num_bins


class Coded(NamedTuple):
    """A column as places in its values."""

    codes: np.ndarray  # int64 [rows]
    values: pa.Array  # string; a null is a value of its own


class SliceColumns:
    """The columns of a slice. Hours and seconds are of the clip; NaN stands for null in ``floats``."""

    def __init__(self, table: pa.Table, duration: str = DURATION, speech_share: str | None = SPEECH_SHARE) -> None:
        self.table, self.num_rows = table, table.num_rows
        self._floats: dict[str, np.ndarray] = {}
        self._coded: dict[str, Coded] = {}
        self._bins: dict[tuple[str, Bounds, bool], np.ndarray] = {}
        # A text document has no length, and a clip that ends before it starts must not count against others.
        self.seconds = np.maximum(0.0, np.nan_to_num(self.floats(duration)))
        shares = np.nan_to_num(self.floats(speech_share)) if speech_share else np.zeros(self.num_rows)
        self.speech_seconds = self.seconds * np.clip(shares, 0.0, 1.0)

    def floats(self, name: str) -> np.ndarray:
        """float64 ``[rows]``, NaN where null."""
        if name not in self._floats:
            column = self.table[name]
            if pa.types.is_boolean(column.type):
                column = pc.cast(column, pa.int8())
            self._floats[name] = column.to_numpy().astype(np.float64, copy=False)
        return self._floats[name]

    def ints(self, name: str) -> np.ndarray:
        """A column that is never null, as it is stored."""
        return self.table[name].to_numpy()

    def num_nulls(self, name: str) -> int:
        return int(self.table[name].null_count)

    def coded(self, name: str) -> Coded:
        """By value; of a tag (a struct with ``value``) by that."""
        if name not in self._coded:
            column = self.table[name]
            if pa.types.is_struct(column.type):
                column = pc.struct_field(column, "value")
            whole = column.combine_chunks()
            if whole.null_count == len(whole):
                coded = Coded(np.zeros(self.num_rows, np.int64), pa.nulls(1, pa.string()))
            else:
                encoded = whole.dictionary_encode(null_encoding="encode")
                values = encoded.dictionary
                if not pa.types.is_string(values.type):
                    values = pa.array([None if v is None else _shown(v) for v in values.to_pylist()], pa.string())
                coded = Coded(encoded.indices.to_numpy().astype(np.int64), values)
            self._coded[name] = coded
        return self._coded[name]

    def put_coded(self, name: str, coded: Coded) -> None:
        """A column that is none of the table's, e.g. a band."""
        self._coded[name] = coded

    def bins(self, name: str, bounds: Bounds, *, closed_above: bool = False) -> np.ndarray:
        """``bins_of`` the column."""
        key = (name, bounds, closed_above)
        if key not in self._bins:
            self._bins[key] = bins_of(self.floats(name), bounds, closed_above=closed_above)
        return self._bins[key]


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return str(value).lower() if isinstance(value, bool) else str(value)


def bounds_of(distribution: Distribution) -> Bounds:
    return distribution.low, distribution.high, distribution.num_bins


def edges_of(bounds: Bounds) -> np.ndarray:
    """float64 ``[num_bins + 1]``."""
    return np.linspace(bounds[0], bounds[1], bounds[2] + 1)


def bins_of(values: np.ndarray, bounds: Bounds, *, closed_above: bool = False) -> np.ndarray:
    """int64 ``[rows]``: 0 below ``low``, then the bins, ``num_bins + 1`` above ``high``, ``num_bins + 2`` NaN.

    A bin is ``[edge, next edge)``, the last one with ``high``; ``closed_above`` it is ``(edge, next edge]``, and ``low`` is
    below the first.
    """
    low, high, num = bounds
    edges = edges_of(bounds)
    is_nan = np.isnan(values)
    inside = np.clip(np.where(is_nan, low, values), low, high)
    found = ((inside - low) * (num / (high - low))).astype(np.int64)
    np.minimum(found, num - 1, out=found)
    # Division rounds: a value that lies on an edge, or next to one, may be a bin off.
    if closed_above:
        found -= inside <= edges[found]
        found += inside > edges[found + 1]
    else:
        found -= inside < edges[found]
        found += (inside >= edges[found + 1]) & (found < num - 1)
        found[values < low] = -1
    found += 1
    found[values > high] = num + 1
    found[is_nan] = num + 2
    return found


def combined(parts: Sequence[Coded]) -> tuple[np.ndarray, list[pa.Array]]:
    """(places int64 ``[rows]``, the values of each part at every place that occurs)."""
    codes = parts[0].codes
    for part in parts[1:]:
        codes = codes * len(part.values) + part.codes
    if len(parts) == 1:
        return codes, [parts[0].values]
    found, places = np.unique(codes, return_inverse=True)
    keys = []
    for part in reversed(parts):
        keys.append(part.values.take(pa.array(found % len(part.values))))
        found = found // len(part.values)
    return places, keys[::-1]
