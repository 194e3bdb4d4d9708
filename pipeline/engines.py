"""Where works run. Both engines take the same tasks from one schedule and give the same bytes.

``local`` runs one task after the other in this process: small inputs, debugging. ``ray`` is in ``pipeline.ray_engine``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from manifests.errors import WorkError
from manifests.store import Store
from pipeline.units import Unit
from pipeline.works import Work, do


class Task(NamedTuple):
    """One work on one unit, by their positions in the build."""

    unit: int
    work: int


MAX_ATTEMPTS = 3
# Ready tasks that a search for one that can start looks at: pools are few, so somebody idle finds work among these.
MAX_PASSED = 1000
Done = Callable[[Task, dict[str, Any]], None]  # with the LEDGER row


class Schedule:
    """Hands out tasks whose inputs are committed: the earliest unit first, so that units complete and little lies open.

    A task is waiting (for what it reads), ready, started, or finished. The cost of a step does not grow with the number of
    tasks: a plan has units by the ten thousand.
    """

    def __init__(self, works: Sequence[Work], todo: Iterable[Task]) -> None:
        made_by = {work.output: number for number, work in enumerate(works)}
        self._names = [work.output for work in works]
        self._open = set(todo)
        self._num_needs: dict[Task, int] = {}
        self._readers: dict[Task, list[Task]] = {}
        self._attempts: dict[Task, int] = {}
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

    def start(self, can_start: Callable[[Task], bool] = lambda _: True) -> Task | None:
        """The first ready task that can start, by unit, then work; None when there is none."""
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
        """A started task failed for a reason that may pass. Raises WorkError after MAX_ATTEMPTS of them."""
        self._attempts[task] = self._attempts.get(task, 0) + 1
        if self._attempts[task] >= MAX_ATTEMPTS:
            raise WorkError(
                f"{self._names[task.work]} on unit {unit.unit_id} failed {MAX_ATTEMPTS} times, the last because {because}; "
                "what is committed stays, run the same command to go on"
            )
        heapq.heappush(self._ready, task)


class Engine(Protocol):
    """Runs tasks in an order that their reads allow, and tells each that is done."""

    def check(self, works: Sequence[Work]) -> None:
        """Raise RequestError when these works cannot run here; called before anything is written."""
        ...

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None: ...


class LocalEngine:
    """Everything in this process, one task at a time."""

    def check(self, works: Sequence[Work]) -> None:
        """One process takes any work."""

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None:
        schedule = Schedule(works, todo)
        while task := schedule.start():
            try:
                row = do(works[task.work], store, units[task.unit])
            except OSError as error:
                schedule.retry(task, units[task.unit], f"{type(error).__name__}: {error}")
                continue
            schedule.finish(task)
            done(task, row)


def pools(works: Sequence[Work]) -> Mapping[str, list[int]]:
    """Pool name -> works that share its worker processes."""
    found: dict[str, list[int]] = {}
    for number, work in enumerate(works):
        found.setdefault(work.resources.pool, []).append(number)
    return found
