"""Where works run. Every engine takes its tasks from one schedule and gives the same bytes.

``inline`` runs one task after the other in this process: tests, debuggers. ``local`` does so in a child process, which an
input may take down without ending the build. ``ray`` is in ``pipeline.ray_engine``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from manifests.errors import RequestError
from manifests.store import Store
from pipeline.keeper import Keeper
from pipeline.limits import ErrorBudget, LimitsConfig
from pipeline.schedule import Schedule, Task
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import Work, do, load


class Journal(Protocol):
    """Whoever wants to know how a run goes: its ledger."""

    def add(self, row: dict[str, Any]) -> None:
        """A task is done: its LEDGER row."""
        ...

    def found(self, part: str, unit: str) -> None:
        """A task of ours was committed by another run meanwhile."""
        ...

    def tick(
        self,
        *,
        num_in_flight: int | None = None,
        workers: Mapping[str, int] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
    ) -> None:
        """Called about once a second while tasks run; an engine tells what it knows of itself."""
        ...


class Engine(Protocol):
    """Runs tasks in an order that their reads allow, and tells each that is done."""

    def check(self, works: Sequence[Work]) -> None:
        """Raise RequestError when these works cannot run here; called before anything is written."""
        ...

    def load(self, store: Store, works: Sequence[Work], numbers: Sequence[int], limits: LimitsConfig) -> None:
        """Load the models of the works at ``numbers`` once where they will run; called before anything is written.

        ``works`` are those that ``run`` gets, if it is called. Raises ModelUnavailable for a model that does not load.
        """
        ...

    def run(
        self,
        store: Store,
        units: Sequence[Unit],
        works: Sequence[Work],
        todo: Iterable[Task],
        journal: Journal,
        limits: LimitsConfig,
    ) -> None: ...

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[Any], None]) -> list[Any]:
        """Results of independent calls, in the order of the items; ``done`` hears each result as it comes.

        Functions, items and results are picklable; a call may be made again, so it does the same each time.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds since ``check``, or between calls of ``map``."""
        ...


class InlineEngine:
    """Everything in this process, one task at a time. An input that takes its process down takes down this one."""

    def check(self, works: Sequence[Work]) -> None:
        """One process takes any work, but for one that asks for a GPU where there is none."""
        if any(work.resources.num_gpus for work in works):
            import torch

            if not torch.cuda.is_available():
                asks = next(work.output for work in works if work.resources.num_gpus)
                raise RequestError(
                    f"{asks} asks for a GPU (device: cuda) and this machine has none; say `device: cpu` or run where there is one"
                )

    def load(self, store: Store, works: Sequence[Work], numbers: Sequence[int], limits: LimitsConfig) -> None:
        """In this process, which keeps them."""
        for number in numbers:
            load(works[number])

    def run(
        self,
        store: Store,
        units: Sequence[Unit],
        works: Sequence[Work],
        todo: Iterable[Task],
        journal: Journal,
        limits: LimitsConfig,
    ) -> None:
        _one_by_one(lambda task: do(works[task.work], store, units[task.unit], Watch()), units, works, todo, journal, limits)

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[Any], None]) -> list[Any]:
        results = []
        for item in items:
            results.append(function(item))
            done(results[-1])
        return results

    def close(self) -> None:
        """Nothing is held."""


class LocalEngine(InlineEngine):
    """One task at a time in a child process with limits; what takes the child down is found and left out."""

    def __init__(self) -> None:
        self._keeper: Keeper | None = None

    def load(self, store: Store, works: Sequence[Work], numbers: Sequence[int], limits: LimitsConfig) -> None:
        """In the child that will run the works."""
        self._keeper = Keeper(store, dict(enumerate(works)), limits)
        for number in numbers:
            self._keeper.load(number)

    def run(
        self,
        store: Store,
        units: Sequence[Unit],
        works: Sequence[Work],
        todo: Iterable[Task],
        journal: Journal,
        limits: LimitsConfig,
    ) -> None:
        with self._keeper or Keeper(store, dict(enumerate(works)), limits) as keeper:
            keeper.tick = journal.tick
            _one_by_one(lambda task: keeper.run(task.work, units[task.unit]), units, works, todo, journal, limits)

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.close()


def _one_by_one(
    run: Callable[[Task], dict[str, Any] | None],
    units: Sequence[Unit],
    works: Sequence[Work],
    todo: Iterable[Task],
    journal: Journal,
    limits: LimitsConfig,
) -> None:
    schedule, budget = Schedule(works, todo), ErrorBudget(limits)
    while schedule:
        task = schedule.start()
        if task is None:  # all that is left rests after a failure
            time.sleep(schedule.rest_s())
            continue
        try:
            row = run(task)
        except OSError as error:
            schedule.retry(task, units[task.unit], f"{type(error).__name__}: {error}")
            continue
        schedule.finish(task)
        journal.tick(num_cpus=1)
        settle(row, works[task.work], units[task.unit], journal, budget)


def settle(row: dict[str, Any] | None, work: Work, unit: Unit, journal: Journal, budget: ErrorBudget) -> None:
    """Write down a finished task. Raises WorkError where it spends the error budget."""
    if row is None:
        journal.found(work.output, unit.unit_id)
    else:
        journal.add(row)
        budget.add(row)
