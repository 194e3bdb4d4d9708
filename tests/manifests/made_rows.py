"""Rows made of a table in memory, cut into slices, which remember what was read of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from manifests.rows import Slice


class MadeRows:
    """A table as ``Rows`` of slices of ``slice_rows``."""

    uri = "memory://made"

    def __init__(self, table: pa.Table, slice_rows: int = 7, name: str = "clips") -> None:
        self.whole, self.table = table, name
        starts = range(0, table.num_rows, slice_rows)
        self.slices = [Slice((), start, min(start + slice_rows, table.num_rows)) for start in starts]
        self.read_columns: set[str] = set()

    @property
    def schema(self) -> pa.Schema:
        return self.whole.schema

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        self.read_columns |= {*columns}
        return self.whole.slice(part.start, part.stop - part.start).select(list(columns))


def made_clips(num_rows: int = 100, seed: int = 0) -> pa.Table:
    """Clips with facts of every type, nulls among them."""
    random = np.random.default_rng(seed)

    def some_null(values: list[object]) -> list[object]:
        return [None if missing else value for value, missing in zip(values, random.random(num_rows) < 0.1, strict=True)]

    columns = {
        "clip.clip_id": pa.array([random.bytes(16) for _ in range(num_rows)], pa.binary(16)),
        "clip.duration_s": pa.array(random.uniform(0.5, 30, num_rows)),
        "clip.language": pa.array(some_null(random.choice(["zh", "en", "de"], num_rows).tolist()), pa.string()),
        "input.source": pa.array(random.choice(["radio", "studio"], num_rows).tolist(), pa.string()),
        "input.text": pa.array(some_null([f"said {i}" for i in range(num_rows)]), pa.string()),
        "recording.is_truncated": pa.array((random.random(num_rows) < 0.2).tolist(), pa.bool_()),
        "asr.text": pa.array(some_null([f"heard {i}" for i in range(num_rows)]), pa.string()),
        "signal.snr_db": pa.array(some_null(random.normal(20, 8, num_rows).tolist()), pa.float32()),
        "signal.num_peaks": pa.array(some_null(random.integers(0, 5, num_rows).tolist()), pa.int64()),
    }
    return pa.table(columns)
