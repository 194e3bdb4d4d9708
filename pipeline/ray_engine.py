"""The Ray engine: an actor pool a model, fed by one streaming schedule.

The driver decides what runs: at most as many tasks at a time as the cluster has CPUs, each given to an idle worker of
its pool; a worker is added when its pool has work and every worker of it is busy. Workers hold only a share of a CPU
each: pools that each took a whole one would leave none for the others on a small cluster and hang forever. A worker
that dies loses the task it held; the task is tried again on a new worker.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from manifests.errors import RequestError, StepwellError, WorkError
from manifests.store import Store
from pipeline.engines import Done, Schedule, Task, pools
from pipeline.units import Unit
from pipeline.works import Work, do

if TYPE_CHECKING:
    from ray import ObjectRef

MAX_ATTEMPTS = 3
# One thread a worker: the schedule keeps every CPU busy, and fixed threads keep the bytes the same.
WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
    "OTEL_SDK_DISABLED": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


class Worker:
    """One process of a pool: the works that it can do, each set up once."""

    def __init__(self, store: Store, works: dict[int, Work]) -> None:
        self._store, self._works = store, works

    def run(self, work: int, unit: Unit) -> dict[str, Any]:
        return do(self._works[work], self._store, unit)


class RayEngine:
    """``address`` joins a cluster; without one, a cluster of this process is used, or started with ``num_cpus``."""

    def __init__(self, address: str | None = None, num_cpus: int | None = None) -> None:
        self._address, self._num_cpus = address, num_cpus

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None:
        import ray

        started = self._connect()
        try:
            _Run(store, units, works, Schedule(works, todo), self._cpus()).drive(done)
        finally:
            if started:
                ray.shutdown()

    def _cpus(self) -> int:
        import ray

        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < 1:
            raise RequestError("the Ray cluster has 0 CPUs; a build needs at least 1, start nodes with --num-cpus")
        return min(cpus, self._num_cpus or cpus)

    def _connect(self) -> bool:
        """Join or start a cluster; True when this process started one and must stop it."""
        import ray

        if ray.is_initialized():
            return False
        # A cluster of our own, away from Ray's default folder, which another program's cluster may be using.
        local: dict[str, Any] = {
            "num_cpus": self._num_cpus,
            "include_dashboard": False,
            "_temp_dir": tempfile.mkdtemp(prefix="stepwell-ray-", dir="/tmp" if os.path.isdir("/tmp") else None),
            "object_store_memory": 200 << 20,  # references travel, not audio
        }
        ray.init(
            address=self._address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": WORKER_ENV},
            **({} if self._address else local),
        )
        return True


class _Run:
    """One build on a connected cluster."""

    def __init__(self, store: Store, units: Sequence[Unit], works: Sequence[Work], schedule: Schedule, cpus: int) -> None:
        self._store, self._units, self._works, self._schedule, self._cpus = store, units, works, schedule, cpus
        self._pool_of = {number: pool for pool, members in pools(works).items() for number in members}
        self._members = pools(works)
        self._idle: dict[str, list[Any]] = {pool: [] for pool in self._members}
        self._num_workers = dict.fromkeys(self._members, 0)
        self._running: dict[ObjectRef, tuple[Task, Any]] = {}
        self._attempts: dict[Task, int] = {}

    def drive(self, done: Done) -> None:
        """Start what may start, wait for what ends, until nothing is left."""
        import ray

        while self._schedule:
            self._start_ready()
            finished, _ = ray.wait(list(self._running), num_returns=1)
            for ref in finished:
                task, worker = self._running.pop(ref)
                row = self._collect(ref, task, worker)
                if row is not None:
                    self._schedule.finish(task)
                    done(task, row)

    def _start_ready(self) -> None:
        for task in self._schedule.ready():
            if len(self._running) >= self._cpus:
                return
            worker = self._take_worker(self._pool_of[task.work])
            if worker is not None:
                self._schedule.start(task)
                self._running[worker.run.remote(task.work, self._units[task.unit])] = (task, worker)

    def _take_worker(self, pool: str) -> Any:
        """An idle worker of the pool, a new one while it has fewer than CPUs, else None."""
        import ray

        if self._idle[pool]:
            return self._idle[pool].pop()
        if self._num_workers[pool] >= self._cpus:
            return None
        self._num_workers[pool] += 1
        # All workers of all pools together hold less than the CPUs there are: every one of them can be placed.
        share = math.floor(900 / len(self._members)) / 1000
        members = {number: self._works[number] for number in self._members[pool]}
        num_gpus = max(work.resources.num_gpus for work in members.values())
        return ray.remote(Worker).options(num_cpus=share, num_gpus=num_gpus).remote(self._store, members)

    def _collect(self, ref: ObjectRef, task: Task, worker: Any) -> dict[str, Any] | None:
        """The task's LEDGER row; None when its worker died and the task will be tried again."""
        import ray

        pool = self._pool_of[task.work]
        try:
            row: dict[str, Any] = ray.get(ref)
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
            self._num_workers[pool] -= 1
            self._retry(task, f"its worker died ({type(error).__name__})")
            return None
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StepwellError):
                raise cause from None
            if not isinstance(cause, OSError):
                raise WorkError(f"{self._name(task)}: {type(cause).__name__}: {cause}") from error
            self._idle[pool].append(worker)
            self._retry(task, f"{type(cause).__name__}: {cause}")
            return None
        self._idle[pool].append(worker)
        return row

    def _retry(self, task: Task, because: str) -> None:
        self._attempts[task] = self._attempts.get(task, 0) + 1
        if self._attempts[task] >= MAX_ATTEMPTS:
            raise WorkError(
                f"{self._name(task)} failed {MAX_ATTEMPTS} times, the last because {because}; what is committed stays"
            )
        self._schedule.stop(task)

    def _name(self, task: Task) -> str:
        return f"{self._works[task.work].output} on unit {self._units[task.unit].unit_id}"
