"""The Ray engine: an actor pool a model, fed by one streaming schedule.

The driver decides what runs: tasks whose CPUs fit in the cluster's, each given to an idle worker of its pool; a worker is
added when its pool has work and every worker of it is busy, and ended when it idles. Workers hold only a share of a CPU each:
pools that each took a whole one would leave none for the others on a small cluster and hang forever.

What travels is (work, unit): references to stored audio, never waveforms. A worker that dies loses the task it held; the task
is tried again by a worker that keeps a child process and finds the input that is to blame (``pipeline.keeper``).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manifests.errors import RequestError, WorkError
from manifests.store import Store
from pipeline.engines import Journal, settle
from pipeline.keeper import Keeper, portable
from pipeline.limits import LIMITED_ENV, ErrorBudget, LimitsConfig
from pipeline.pools import Pool, PoolConfig, check_pools, gpu_workers, make_pools
from pipeline.schedule import MAX_ATTEMPTS, Schedule, Task
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import Work, do

if TYPE_CHECKING:
    from ray import ObjectRef

# One thread a worker: the schedule keeps every CPU busy, and fixed threads keep the bytes the same.
WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
    "OTEL_SDK_DISABLED": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    **LIMITED_ENV,
}
TICK_S = 1.0
CLUSTER_EVERY_S = 10.0  # how often the cluster is asked what it has: nodes come and go


class Worker:
    """One process of a pool: the works that it can do, each set up once."""

    def __init__(self, store: Store, works: dict[int, Work], limits: LimitsConfig) -> None:
        self._store, self._works, self._limits = store, works, limits

    def where(self) -> str:
        """The node that it lives on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, work: int, unit: Unit, *, kept: bool) -> dict[str, Any] | Exception | None:
        """The LEDGER row, or the error. ``kept``: in a child process, so that what kills it is found."""
        try:
            if kept:
                with Keeper(self._store, self._works, self._limits) as keeper:
                    return keeper.run(work, unit)
            limits = self._limits.of(self._works[work].resources)
            return do(self._works[work], self._store, unit, Watch(limits=limits))
        except Exception as error:
            return portable(error, f"{self._works[work].output} on unit {unit.unit_id}")


class RayEngine:
    """``address`` (or RAY_ADDRESS) joins a cluster; without one, a cluster that this process holds is used, or one is started.

    ``num_cpus`` is what a started cluster declares, and the most that a joined one is used for.
    """

    def __init__(
        self, address: str | None = None, num_cpus: int | None = None, pools: Mapping[str, PoolConfig] | None = None
    ) -> None:
        # A job of `ray job submit` finds its cluster in the environment, as Ray's own programs do.
        self._address, self._num_cpus = address or os.environ.get("RAY_ADDRESS"), num_cpus
        self._configs = dict(pools or {})
        self._is_connected = False  # by this engine, not by whoever holds the process
        self._folder: str | None = None  # of a cluster started here

    def check(self, works: Sequence[Work]) -> None:
        """Connect, and refuse a plan that the cluster can never place."""
        import ray

        if not ray.is_initialized():
            self._connect()
        cluster = _Cluster.now(self._num_cpus)
        if cluster.num_cpus < 1:
            raise RequestError("the Ray cluster has 0 CPUs; a build needs at least 1, start nodes with --num-cpus")
        check_pools(make_pools(works, self._configs), works, cluster.num_gpus, cluster.memory_bytes)

    def run(
        self,
        store: Store,
        units: Sequence[Unit],
        works: Sequence[Work],
        todo: Iterable[Task],
        journal: Journal,
        limits: LimitsConfig,
    ) -> None:
        self.check(works)
        try:
            pools = make_pools(works, self._configs)
            _Run(store, units, works, pools, Schedule(works, todo), limits, self._num_cpus).drive(journal)
        finally:
            self.close()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[Any], None]) -> list[Any]:
        """Results of independent calls, in the order of the items; ``done`` hears each result as it comes.

        A call that is lost with its worker, or meets an OSError, is tried again; other errors end the whole.
        """
        import ray

        if not ray.is_initialized():
            self._connect()
        most = max(1, _Cluster.now(self._num_cpus).num_cpus)
        call = ray.remote(_call).options(num_cpus=1, max_retries=MAX_ATTEMPTS, runtime_env={"env_vars": WORKER_ENV})
        results: dict[int, Any] = {}
        attempts = dict.fromkeys(range(len(items)), 0)
        waiting, running = deque(range(len(items))), dict[Any, int]()
        while waiting or running:
            while waiting and len(running) < most:
                number = waiting.popleft()
                running[call.remote(function, items[number])] = number
            for ref in ray.wait(list(running), num_returns=1)[0]:
                number = running.pop(ref)
                try:
                    answer = ray.get(ref)
                except ray.exceptions.RayError as error:
                    raise WorkError(f"{function.__name__} on Ray: {_first_line(error)}; run the same command to go on") from error
                attempts[number] += 1
                if isinstance(answer, OSError) and attempts[number] < MAX_ATTEMPTS:
                    waiting.append(number)
                elif isinstance(answer, Exception):
                    raise answer
                else:
                    results[number] = answer
                    done(answer)
        return [results[number] for number in range(len(items))]

    def _connect(self) -> None:
        import ray

        local: dict[str, Any] = {}
        self._is_connected = True
        if self._address is None:
            # A cluster of our own, away from Ray's default folder, which another program's cluster may be using.
            self._folder = tempfile.mkdtemp(prefix="stepwell-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
            local = {
                "num_cpus": self._num_cpus,
                "include_dashboard": False,
                "_temp_dir": self._folder,
                "object_store_memory": 200 << 20,  # references travel, not audio
            }
        try:
            ray.init(address=self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            self.close()
            reason = " ".join(str(error).split())[:200]
            raise RequestError(
                f"Ray at {self._address or 'a cluster of our own'} cannot be used: {reason}; check --address"
            ) from error

    def close(self) -> None:
        """Leave a joined cluster; stop one that was started here and remove its folder. One found running is left alone."""
        if not self._is_connected:
            return
        import ray

        ray.shutdown()
        self._is_connected = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


@dataclass(frozen=True)
class _Cluster:
    """What the cluster has."""

    num_cpus: int
    num_gpus: float
    memory_bytes: int
    nodes: frozenset[str]  # alive

    @staticmethod
    def now(most_cpus: int | None) -> _Cluster:
        import ray

        has = ray.cluster_resources()
        cpus = int(has.get("CPU", 0))
        alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
        return _Cluster(min(cpus, most_cpus or cpus), float(has.get("GPU", 0)), int(has.get("memory", 0)) or sys.maxsize, alive)


@dataclass(eq=False)
class _Member:
    """One worker: its actor, where it lives (asked once) and since when it idles."""

    pool: Pool
    actor: Any
    where: ObjectRef
    node: str | None = None
    idle_since: float = 0.0
    running: Task | None = None


class _Run:
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
        self._workers: list[_Member] = []
        self._running: dict[ObjectRef, _Member] = {}
        self._suspected: set[Task] = set()  # tasks that have taken a worker down
        self._cluster = _Cluster.now(most_cpus)
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

    def _take_worker(self, pool: Pool) -> _Member:
        """An idle worker of the pool, or a new one."""
        import ray

        for member in self._workers:
            if member.pool is pool and member.running is None:
                return member
        # All workers of all pools together hold less than the CPUs there are: every one of them can be placed.
        share = math.floor(900 / len(self._pools)) / 1000
        env = pool.config.runtime_env
        threads = {name: str(max(1, int(pool.num_cpus))) for name in WORKER_ENV if name.endswith("_NUM_THREADS")}
        runtime_env = {**env, "env_vars": {**WORKER_ENV, **threads, **env.get("env_vars", {})}}
        options = {"num_cpus": share, "num_gpus": pool.num_gpus, "runtime_env": runtime_env, "scheduling_strategy": "SPREAD"}
        members = {number: self._works[number] for number in pool.members}
        actor: Any = ray.remote(Worker).options(**options).remote(self._store, members, self._limits)
        member = _Member(pool, actor, actor.where.remote())
        self._workers.append(member)
        return member

    def _collect(self, ref: ObjectRef, member: _Member, journal: Journal, budget: ErrorBudget) -> None:
        """Write down a task that ended, or have it tried again. Raises WorkError and what else ends the run."""
        import ray

        task = member.running
        assert task is not None
        unit = self._units[task.unit]
        member.running, member.idle_since = None, time.monotonic()
        try:
            answer = ray.get(ref)
        except ray.exceptions.RuntimeEnvSetupError as error:
            raise WorkError(f"pool {member.pool.name!r}: its runtime_env cannot be set up: {_first_line(error)}") from error
        except ray.exceptions.RayTaskError as error:
            raise WorkError(f"pool {member.pool.name!r}: a worker cannot start: {_first_line(error.cause or error)}") from error
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

    def _lost(self, member: _Member, task: Task, unit: Unit, error: Exception) -> None:
        """A worker died with its task. When its node went with it, the task is not to blame."""
        self._end(member)
        self._look_around()
        if self._is_gone(member):
            self._schedule.again(task)
            return
        self._suspected.add(task)
        self._schedule.retry(task, unit, f"its worker was lost ({type(error).__name__}: {_first_line(error)})")

    def _look_around(self) -> None:
        """What the cluster has now; idle workers of nodes that are gone are forgotten."""
        self._cluster, self._asked_at = _Cluster.now(self._most_cpus), time.monotonic()
        for member in [m for m in self._workers if m.running is None and self._is_gone(m)]:
            self._end(member)

    def _is_gone(self, member: _Member) -> bool:
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

    def _end(self, member: _Member) -> None:
        import ray

        if member in self._workers:
            self._workers.remove(member)
        ray.kill(member.actor)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """The result, or the error in a form that travels."""
    try:
        return function(item)
    except Exception as error:
        return portable(error, function.__name__)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
