"""What the parts of the experiment cost: wall and CPU seconds of each, written down as they end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from manifests.cpu_clock import spent_s


@dataclass(frozen=True)
class Cost:
    """Of one phase: with all processes that ended in it."""

    phase: str
    wall_s: float
    cpu_s: float
    is_finished: bool = True  # False: it failed or was interrupted

    @property
    def title(self) -> str:
        return self.phase if self.is_finished else f"{self.phase}, cut off"


class Phases:
    """Costs in the order of the work, kept in a file, so that a run that was cut off and went on has all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.costs = [Cost(**row) for row in json.loads(path.read_text())] if path.exists() else []

    @contextmanager
    def phase(self, name: str, result: Path | None = None) -> Iterator[None]:
        """Time what is done in the block, however it ends. One that is done again counts with all its times.

        One that has finished, and whose ``result`` is there, adds nothing: its block only sees that there is nothing to do.
        """
        print(f"── {name}", flush=True)
        is_done = result is not None and result.exists() and any(cost.phase == name and cost.is_finished for cost in self.costs)
        wall_s, cpu_s, is_finished = time.perf_counter(), spent_s(), False
        try:
            yield
            is_finished = True
        finally:
            cost = Cost(name, time.perf_counter() - wall_s, spent_s() - cpu_s, is_finished)
            print(f"   {cost.title}: {cost.wall_s:.0f} s, {cost.cpu_s:.0f} s of CPU", flush=True)
            if not (is_done and is_finished):
                self.costs.append(cost)
                self._path.write_text(json.dumps([asdict(cost) for cost in self.costs]))

    @property
    def wall_s(self) -> float:
        return sum(cost.wall_s for cost in self.costs)

    @property
    def cpu_s(self) -> float:
        return sum(cost.cpu_s for cost in self.costs)


def module(*words: str | Path) -> Sequence[str]:
    """The words that run a module of this folder."""
    return [sys.executable, "-m", *map(str, words)]
