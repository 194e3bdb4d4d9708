"""Sketches of the datasketches library that can be pickled: quantiles (KLL) and distinct counts (HLL), mergeable in any order."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasketches import hll_sketch, hll_union, kll_doubles_sketch, tgt_hll_type

from manifests.schema import ID

KLL_SIZE = 1600  # ranks off by at most 0.18 % in 99 of 100 cases; some 40 KB
HLL_BITS = 14  # relative error 0.8 %, 16 KB


class QuantileSketch:
    """Quantiles of the numbers added. Karnin, Lang and Liberty: Optimal Quantile Approximation in Streams (FOCS 2016)."""

    def __init__(self) -> None:
        self._sketch = kll_doubles_sketch(KLL_SIZE)

    @property
    def num_values(self) -> int:
        return int(self._sketch.n)

    @property
    def rank_error(self) -> float:
        """How far the rank of a value may be off, with 99 %; 0 while every value is kept."""
        return float(self._sketch.normalized_rank_error(False)) if self._sketch.is_estimation_mode() else 0.0

    def add(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Float64 ``[n]``, none of them NaN."""
        self._sketch.update(np.ascontiguousarray(values))

    def merge(self, other: Self) -> None:
        self._sketch.merge(other._sketch)

    def quantile(self, share: float) -> float | None:
        """The smallest value that ``share`` of all are not above; None of nothing."""
        return float(self._sketch.get_quantile(share, True)) if self.num_values else None

    def __getstate__(self) -> bytes:
        return bytes(self._sketch.serialize())

    def __setstate__(self, state: bytes) -> None:
        self._sketch = kll_doubles_sketch.deserialize(state)


class DistinctSketch:
    """How many distinct values were added. Flajolet et al.: HyperLogLog (AofA 2007), as datasketches has it."""

    def __init__(self) -> None:
        self._sketch = hll_sketch(HLL_BITS, tgt_hll_type.HLL_8)

    def add(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Values of any single type; nulls do not count."""
        distinct = pc.unique(column).drop_null()
        for value in _words(distinct) if distinct.type == ID else distinct.to_pylist():
            self._sketch.update(value if isinstance(value, (int, float)) else str(value))

    def merge(self, other: Self) -> None:
        union = hll_union(HLL_BITS)
        union.update(self._sketch)
        union.update(other._sketch)
        self._sketch = union.get_result(tgt_hll_type.HLL_8)

    @property
    def estimate(self) -> int:
        return round(self._sketch.get_estimate())

    def bounds(self, sigmas: int) -> tuple[int, int]:
        """Fewest and most that there may be, with 95 % for two sigmas, 99.7 % for three."""
        return math.ceil(self._sketch.get_lower_bound(sigmas)), math.floor(self._sketch.get_upper_bound(sigmas))

    def __getstate__(self) -> bytes:
        return bytes(self._sketch.serialize_compact())

    def __setstate__(self, state: bytes) -> None:
        self._sketch = hll_sketch.deserialize(state)


def _words(ids: pa.Array) -> list[int]:
    """The first eight bytes of ids, which are digests."""
    words: list[int] = np.frombuffer(ids.buffers()[1], np.int64)[2 * ids.offset :: 2][: len(ids)].tolist()
    return words
