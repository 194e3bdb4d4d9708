"""What an input may cost before it counts as poison, and how many failures a build bears."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from manifests.contracts import Resources
from manifests.errors import WorkError
from manifests.recipes import RecipeModel

# Arrow's own allocators reserve a gigabyte at a time, which RLIMIT_DATA counts as used.
LIMITED_ENV = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


class LimitsConfig(RecipeModel):
    """Limits of one batch of work in a worker process, and the error budget of a run."""

    # What takes longer than timeout_s plus timeout_x seconds a second of its audio hangs: real parts are far faster.
    timeout_s: PositiveFloat = 300.0
    timeout_x: float = Field(default=5.0, ge=0)
    # Growth of a worker's private memory while it works on a unit, above what its model took; null: no limit.
    memory_bytes: PositiveInt | None = 8 << 30
    # A part whose inputs, channels or clips fail more often than this stops the job: the model is broken, not the audio.
    max_error_share: float = Field(default=0.5, gt=0, le=1)
    # Rows of a part before its share of errors is judged.
    min_rows: PositiveInt = 200
    # Inputs of one unit that may take their process down before the job stops: the part is broken, not so much audio.
    max_poison: PositiveInt = 50

    def of(self, resources: Resources) -> LimitsConfig:
        """The limits of a part: what CUDA maps on the host says nothing of its work."""
        return self.model_copy(update={"memory_bytes": None}) if resources.num_gpus else self


class ErrorBudget:
    """Counts the failures of each part. ``add`` raises WorkError once a part has failed too often."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._counts: dict[str, tuple[int, int]] = {}  # part -> rows, errors

    def add(self, row: dict[str, Any]) -> None:
        """The LEDGER row of a task that is done."""
        rows, errors = self._counts.get(row["part"], (0, 0))
        rows, errors = rows + row["num_rows"], errors + row["num_errors"]
        self._counts[row["part"]] = rows, errors
        if rows >= self._limits.min_rows and errors > self._limits.max_error_share * rows:
            raise WorkError(
                f"{row['part']}: {errors} of {rows} rows failed, over the error budget of {self._limits.max_error_share:.0%}; "
                f"of the last unit: {row['first_error'] or 'no message'}. Mend that, or raise limits.max_error_share; "
                "what is committed stays"
            )


@contextmanager
def limited_memory(num_bytes: int | None) -> Iterator[None]:
    """Private memory of this process may grow by ``num_bytes`` inside; what asks for more gets a MemoryError or dies.

    The limit is RLIMIT_DATA (Linux 4.7 and later: heap and private mappings), not RLIMIT_AS: models map files and
    reserve far more address space than they use.
    """
    if num_bytes is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = _data_bytes() + num_bytes
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process now."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = re.search(r"^VmData:\s+(\d+) kB", file.read(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
