"""The order of a build: tasks whose inputs are committed, the earliest unit first, and what happens when one fails."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from manifests.errors import WorkError
from pipeline.units import Unit
from pipeline.works import Work


class Task(NamedTuple):
    """One work on one unit, by their positions in the build."""

    unit: int
    work: int


MAX_ATTEMPTS = 4
BACKOFF_S = 0.5  # before the second attempt; doubled before each further one
# Ready tasks that a search for one that can start looks at: pools are few, so somebody idle finds work among these.
MAX_PASSED = 1000


class Schedule:
    """Hands out tasks whose inputs are committed: the earliest unit first, so that units complete and little lies open.

    A task is waiting (for what it reads), ready, resting (after a failure that may pass), started, or finished. The cost
    of a step does not grow with the number of tasks: a plan has units by the ten thousand.
    """

    def __init__(self, works: Sequence[Work], todo: Iterable[Task], clock: Callable[[], float] = time.monotonic) -> None:
        made_by = {work.output: number for number, work in enumerate(works)}
        self._names = [work.output for work in works]
        self._open = set(todo)
        self._num_needs: dict[Task, int] = {}
        self._readers: dict[Task, list[Task]] = {}
        self._attempts: dict[Task, int] = {}
        self._resting: list[tuple[float, Task]] = []
        self._clock = clock
        for task in self._open:
            needs = {Task(task.unit, made_by[o]) for o in works[task.work].reads if o in made_by} & self._open
            self._num_needs[task] = len(needs)
            for need in needs:
                self._readers.setdefault(need, []).append(task)
        self._ready = [task for task, count in self._num_needs.items() if not count]
        heapq.heapify(self._ready)

    def __bool__(self) -> bool:
        """Whether anything is left to start or to finish."""
        return bool(self._open)

    def rest_s(self) -> float:
        """Seconds until the next resting task is ready again; 0 when none rests."""
        return max(0.0, self._resting[0][0] - self._clock()) if self._resting else 0.0

    def start(self, can_start: Callable[[Task], bool] = lambda _: True) -> Task | None:
        """The first ready task that can start, by unit, then work; None when there is none."""
        while self._resting and self._resting[0][0] <= self._clock():
            heapq.heappush(self._ready, heapq.heappop(self._resting)[1])
        passed: list[Task] = []
        found = None
        while self._ready and found is None and len(passed) < MAX_PASSED:
            task = heapq.heappop(self._ready)
            if can_start(task):
                found = task
            else:
                passed.append(task)
        for task in passed:
            heapq.heappush(self._ready, task)
        return found

    def finish(self, task: Task) -> None:
        """A started task is done: what waited for it alone becomes ready."""
        self._open.discard(task)
        for reader in self._readers.pop(task, []):
            self._num_needs[reader] -= 1
            if not self._num_needs[reader]:
                heapq.heappush(self._ready, reader)

    def retry(self, task: Task, unit: Unit, because: str) -> None:
        """A started task failed for a reason that may pass: it rests a while. Raises WorkError after MAX_ATTEMPTS of them."""
        self._attempts[task] = self._attempts.get(task, 0) + 1
        if self._attempts[task] >= MAX_ATTEMPTS:
            raise WorkError(
                f"{self._names[task.work]} on unit {unit.unit_id} failed {MAX_ATTEMPTS} times, the last because {because}; "
                "what is committed stays, run the same command to go on"
            )
        rest_s = BACKOFF_S * 2 ** (self._attempts[task] - 1)
        heapq.heappush(self._resting, (self._clock() + rest_s, task))

    def again(self, task: Task) -> None:
        """A started task was lost through no fault of its own: it is ready at once, and no attempt is counted."""
        heapq.heappush(self._ready, task)
