"""One build on a connected Ray cluster: which task runs where, and when workers come and go.

Tasks run whose CPUs fit in the cluster's, each on an idle worker of its pool; a worker is added when its pool has work and every
worker of it is busy, and ended when it idles. Workers hold only a share of a CPU each: pools that each took a whole one would
leave none for the others on a small cluster and hang forever.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manifests.store import Store
from pipeline.engines import Journal, settle
from pipeline.limits import ErrorBudget, LimitsConfig
from pipeline.pools import Pool, gpu_workers
from pipeline.ray_workers import first_line, no_worker, start_worker
from pipeline.schedule import Schedule, Task
from pipeline.units import Unit
from pipeline.works import Work

if TYPE_CHECKING:
    from ray import ObjectRef

TICK_S = 1.0
CLUSTER_EVERY_S = 10.0  # how often the cluster is asked what it has: nodes come and go


@dataclass(frozen=True)
class Cluster:
    """What the cluster has."""

    num_cpus: int
    num_gpus: float
    memory_bytes: int
    nodes: frozenset[str]  # alive

    @staticmethod
    def now(most_cpus: int | None) -> Cluster:
        import ray

        has = ray.cluster_resources()
        cpus = int(has.get("CPU", 0))
        alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
        return Cluster(min(cpus, most_cpus or cpus), float(has.get("GPU", 0)), int(has.get("memory", 0)) or sys.maxsize, alive)


@dataclass(eq=False)
class Member:
    """One worker: its actor, where it lives (asked once) and since when it idles."""

    pool: Pool
    actor: Any
    where: ObjectRef
    node: str | None = None
    idle_since: float = 0.0
    running: Task | None = None


class RayRun:
    """One build on a connected cluster."""

    def __init__(
        self,
        store: Store,
        units: Sequence[Unit],
        works: Sequence[Work],
        pools: Mapping[str, Pool],
        schedule: Schedule,
        limits: LimitsConfig,
        most_cpus: int | None,
    ) -> None:
        self._store, self._units, self._works, self._schedule, self._limits = store, units, works, schedule, limits
        self._pools, self._most_cpus = pools, most_cpus
        self._pool_of = {number: pool for pool in pools.values() for number in pool.members}
        self._workers: list[Member] = []
        self._running: dict[ObjectRef, Member] = {}
        self._suspected: set[Task] = set()  # tasks that have taken a worker down
        self._cluster = Cluster.now(most_cpus)
        self._asked_at = time.monotonic()

    def drive(self, journal: Journal) -> None:
        """Start what may start, wait for what ends, until nothing is left."""
        import ray

        budget = ErrorBudget(self._limits)
        while self._schedule:
            self._start_ready()
            if not self._running:
                # All that is left rests after a failure, or waits for nodes to come back.
                time.sleep(min(TICK_S, self._schedule.rest_s() or TICK_S / 10))
            finished = ray.wait(list(self._running), num_returns=1, timeout=TICK_S)[0] if self._running else []
            for ref in finished:
                self._collect(ref, self._running.pop(ref), journal, budget)
            workers = Counter(member.pool.name for member in self._workers)
            has = {"num_cpus": self._cluster.num_cpus, "num_gpus": self._cluster.num_gpus}
            journal.tick(num_in_flight=len(self._running), workers=workers, **has)
            self._end_idle()
            if time.monotonic() - self._asked_at > CLUSTER_EVERY_S:
                self._look_around()

    def _start_ready(self) -> None:
        while True:
            free = self._cluster.num_cpus - sum(member.pool.num_cpus for member in self._running.values())
            task = self._schedule.start(lambda task: self._fits(self._pool_of[task.work], free))  # noqa: B023 (called at once)
            if task is None:
                return
            member = self._take_worker(self._pool_of[task.work])
            member.running = task
            ref = member.actor.run.remote(task.work, self._units[task.unit], kept=task in self._suspected)
            self._running[ref] = member

    def _fits(self, pool: Pool, free_cpus: float) -> bool:
        """Whether the pool's work may start: its CPUs are free, and a worker idles or another one can be placed."""
        # A part that wants more CPUs than there are runs alone.
        if pool.num_cpus > free_cpus and self._running:
            return False
        mine = [member for member in self._workers if member.pool is pool]
        if any(member.running is None for member in mine):
            return True
        return len(mine) < self._most_workers(pool) and self._has_memory(pool)

    def _most_workers(self, pool: Pool) -> int:
        most = pool.config.max_workers or max(1, int(self._cluster.num_cpus / max(1.0, pool.num_cpus)))
        if not pool.num_gpus:
            return min(most, self._cluster.num_cpus)
        sharing = sum(other.num_gpus > 0 for other in self._pools.values())
        return min(most, gpu_workers(pool, self._cluster.num_gpus, sharing))

    def _has_memory(self, pool: Pool) -> bool:
        """Whether one more worker fits in the cluster's memory, once idle workers of other pools are ended for it."""
        missing = sum(member.pool.memory_bytes for member in self._workers) + pool.memory_bytes - self._cluster.memory_bytes
        idle = sorted((m for m in self._workers if m.running is None and m.pool is not pool), key=lambda m: m.idle_since)
        if missing > sum(member.pool.memory_bytes for member in idle):
            return False  # and nobody loses a loaded model for nothing
        while missing > 0:
            missing -= idle[0].pool.memory_bytes
            self._end(idle.pop(0))
        return True

    def _take_worker(self, pool: Pool) -> Member:
        """An idle worker of the pool, or a new one."""
        for member in self._workers:
            if member.pool is pool and member.running is None:
                return member
        actor = start_worker(pool, len(self._pools), self._store, self._works, self._limits)
        member = Member(pool, actor, actor.where.remote())
        self._workers.append(member)
        return member

    def _collect(self, ref: ObjectRef, member: Member, journal: Journal, budget: ErrorBudget) -> None:
        """Write down a task that ended, or have it tried again. Raises WorkError and what else ends the run."""
        import ray

        task = member.running
        assert task is not None
        unit = self._units[task.unit]
        member.running, member.idle_since = None, time.monotonic()
        try:
            answer = ray.get(ref)
        except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.RayTaskError) as error:
            raise no_worker(member.pool, error) from error
        except ray.exceptions.RayError as error:
            self._lost(member, task, unit, error)
            return
        if isinstance(answer, OSError):
            self._schedule.retry(task, unit, f"{type(answer).__name__}: {answer}")
            return
        if isinstance(answer, Exception):
            raise answer
        self._schedule.finish(task)
        settle(answer, self._works[task.work], unit, journal, budget)

    def _lost(self, member: Member, task: Task, unit: Unit, error: Exception) -> None:
        """A worker died with its task. When its node went with it, the task is not to blame."""
        self._end(member)
        self._look_around()
        if self._is_gone(member):
            self._schedule.again(task)
            return
        self._suspected.add(task)
        self._schedule.retry(task, unit, f"its worker was lost ({type(error).__name__}: {first_line(error)})")

    def _look_around(self) -> None:
        """What the cluster has now; idle workers of nodes that are gone are forgotten."""
        self._cluster, self._asked_at = Cluster.now(self._most_cpus), time.monotonic()
        for member in [m for m in self._workers if m.running is None and self._is_gone(m)]:
            self._end(member)

    def _is_gone(self, member: Member) -> bool:
        """Whether the worker's node left the cluster. A worker that never said where it lives is not taken for gone."""
        import ray

        if member.node is None and ray.wait([member.where], timeout=0)[0]:
            with contextlib.suppress(ray.exceptions.RayError):  # it died before it said so
                member.node = ray.get(member.where)
        return member.node is not None and member.node not in self._cluster.nodes

    def _end_idle(self) -> None:
        now = time.monotonic()
        for pool in self._pools.values():
            mine = [member for member in self._workers if member.pool is pool]
            idle = [m for m in mine if m.running is None and now - m.idle_since > pool.config.idle_s]
            for member in idle[: max(0, len(mine) - pool.config.min_workers)]:
                self._end(member)

    def _end(self, member: Member) -> None:
        import ray

        if member in self._workers:
            self._workers.remove(member)
        ray.kill(member.actor)
