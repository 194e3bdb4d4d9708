"""Where works run. Both engines take the same tasks from one schedule and give the same bytes.

``local`` runs one task after the other in this process: small inputs, debugging. ``ray`` is in ``pipeline.ray_engine``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from manifests.store import Store
from pipeline.units import Unit
from pipeline.works import Work, do


class Task(NamedTuple):
    """One work on one unit, by their positions in the build."""

    unit: int
    work: int


Done = Callable[[Task, dict[str, Any]], None]  # with the LEDGER row


class Schedule:
    """Hands out tasks whose inputs are committed: the earliest unit first, so that units complete and little lies open."""

    def __init__(self, works: Sequence[Work], todo: Iterable[Task]) -> None:
        made_by = {work.output: number for number, work in enumerate(works)}
        self._open = set(todo)
        self._needs = {task: {Task(task.unit, made_by[o]) for o in works[task.work].reads if o in made_by} for task in self._open}
        self._running: set[Task] = set()

    def __bool__(self) -> bool:
        """Whether anything is left to start or to finish."""
        return bool(self._open)

    def ready(self) -> list[Task]:
        """Tasks that may start now, in order of unit, then work."""
        waiting = sorted(self._open - self._running)
        return [task for task in waiting if not (self._needs[task] & self._open)]

    def start(self, task: Task) -> None:
        self._running.add(task)

    def stop(self, task: Task) -> None:
        """Take a started task back, to be tried again."""
        self._running.discard(task)

    def finish(self, task: Task) -> None:
        self._running.discard(task)
        self._open.discard(task)


class Engine(Protocol):
    """Runs tasks in an order that their reads allow, and tells each that is done."""

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None: ...


class LocalEngine:
    """Everything in this process, one task at a time."""

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None:
        schedule = Schedule(works, todo)
        while schedule:
            task = schedule.ready()[0]
            schedule.start(task)
            row = do(works[task.work], store, units[task.unit])
            schedule.finish(task)
            done(task, row)


def pools(works: Sequence[Work]) -> Mapping[str, list[int]]:
    """Pool name -> works that share its worker processes."""
    found: dict[str, list[int]] = {}
    for number, work in enumerate(works):
        found.setdefault(work.resources.pool, []).append(number)
    return found
