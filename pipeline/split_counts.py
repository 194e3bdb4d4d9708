"""What a split of a pack holds, in numbers, as ``pack.json`` has them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SUMS = ("num_samples", "num_codes", "num_text_tokens")


class SplitCounts:
    """Sums over the rows of a split's manifest, table by table."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(SUMS, 0)
        self._kinds, self._tasks = Counter[str](), Counter[str]()

    def add(self, rows: pa.Table) -> None:
        """Count DOCUMENTS rows."""
        for name in SUMS:
            self._sums[name] += pc.sum(rows[name]).as_py() or 0
        for counter, values in ((self._kinds, rows["kind"]), (self._tasks, pc.list_flatten(rows["tasks"]))):
            counter.update({row["values"]: row["counts"] for row in values.value_counts().to_pylist()})

    def to_json(self, sample_rate_hz: int) -> dict[str, Any]:
        """Documents, hours of their audio, codes and text tokens; documents by kind, and by each task that they can serve."""
        return {
            "num_documents": self._kinds.total(),
            "hours": self._sums["num_samples"] / sample_rate_hz / 3600,
            **{name: self._sums[name] for name in SUMS[1:]},
            "kinds": dict(sorted(self._kinds.items())),
            "tasks": dict(sorted(self._tasks.items())),
        }
