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
import shutil
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
    """``address`` joins a cluster; without one, a cluster that this process holds is used, or one is started.

    ``num_cpus`` is what a started cluster declares, and the most that a joined one is used for.
    """

    def __init__(self, address: str | None = None, num_cpus: int | None = None) -> None:
        self._address, self._num_cpus = address, num_cpus
        self._folder: str | None = None  # of a cluster started here

    def check(self, works: Sequence[Work]) -> None:
        """Connect, and refuse a plan that the cluster can never place."""
        import ray

        if not ray.is_initialized():
            self._connect()
        if self._cpus() < 1:
            raise RequestError("the Ray cluster has 0 CPUs; a build needs at least 1, start nodes with --num-cpus")
        for work in works:
            if work.resources.num_gpus > self._gpus():
                raise RequestError(
                    f"{work.output!r} needs {work.resources.num_gpus:g} GPUs a worker, the Ray cluster has {self._gpus():g}; "
                    "give its part device: cpu, or join a cluster with GPUs"
                )

    def run(self, store: Store, units: Sequence[Unit], works: Sequence[Work], todo: Iterable[Task], done: Done) -> None:
        self.check(works)
        try:
            _Run(store, units, works, Schedule(works, todo), self._cpus(), self._gpus()).drive(done)
        finally:
            self._disconnect()

    def _cpus(self) -> int:
        import ray

        cpus = int(ray.cluster_resources().get("CPU", 0))
        return min(cpus, self._num_cpus or cpus)

    def _gpus(self) -> float:
        import ray

        return float(ray.cluster_resources().get("GPU", 0))

    def _connect(self) -> None:
        import ray

        local: dict[str, Any] = {}
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
            ray.init(
                address=self._address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": WORKER_ENV},
                **local,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            self._disconnect()
            reason = " ".join(str(error).split())[:200]
            raise RequestError(
                f"Ray at {self._address or 'a cluster of our own'} cannot be used: {reason}; check --address"
            ) from error

    def _disconnect(self) -> None:
        """Leave a joined cluster; stop one that was started here and remove its folder. One found running is left alone."""
        import ray

        if self._address is not None or self._folder is not None:
            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _Run:
    """One build on a connected cluster."""

    def __init__(
        self, store: Store, units: Sequence[Unit], works: Sequence[Work], schedule: Schedule, cpus: int, gpus: float
    ) -> None:
        self._store, self._units, self._works, self._schedule = store, units, works, schedule
        self._cpus, self._gpus = cpus, gpus
        self._members = pools(works)
        self._pool_of = {number: pool for pool, members in self._members.items() for number in members}
        self._idle: dict[str, list[Any]] = {pool: [] for pool in self._members}
        self._num_workers = dict.fromkeys(self._members, 0)
        self._running: dict[ObjectRef, tuple[Task, Any]] = {}

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
        while len(self._running) < self._cpus:
            task = self._schedule.start(lambda task: self._has_room(self._pool_of[task.work]))
            if task is None:
                return
            worker = self._take_worker(self._pool_of[task.work])
            self._running[worker.run.remote(task.work, self._units[task.unit])] = (task, worker)

    def _has_room(self, pool: str) -> bool:
        """Whether a worker of the pool is idle, or another one can be placed."""
        return bool(self._idle[pool]) or self._num_workers[pool] < self._most_workers(pool)

    def _most_workers(self, pool: str) -> int:
        num_gpus = self._num_gpus(pool)
        # GPU pools share the GPUs evenly, so that every worker that is asked for can be placed.
        sharing = sum(self._num_gpus(other) > 0 for other in self._members)
        return self._cpus if not num_gpus else max(1, min(self._cpus, int(self._gpus / sharing / num_gpus)))

    def _num_gpus(self, pool: str) -> float:
        return max(self._works[number].resources.num_gpus for number in self._members[pool])

    def _take_worker(self, pool: str) -> Any:
        """An idle worker of the pool, or a new one."""
        import ray

        if self._idle[pool]:
            return self._idle[pool].pop()
        self._num_workers[pool] += 1
        # All workers of all pools together hold less than the CPUs there are: every one of them can be placed.
        share = math.floor(900 / len(self._members)) / 1000
        members = {number: self._works[number] for number in self._members[pool]}
        return ray.remote(Worker).options(num_cpus=share, num_gpus=self._num_gpus(pool)).remote(self._store, members)

    def _collect(self, ref: ObjectRef, task: Task, worker: Any) -> dict[str, Any] | None:
        """The task's LEDGER row; None when it will be tried again."""
        import ray

        pool, unit = self._pool_of[task.work], self._units[task.unit]
        try:
            row: dict[str, Any] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StepwellError):
                raise cause from None
            if not isinstance(cause, OSError):
                name = f"{self._works[task.work].output} on unit {unit.unit_id}"
                raise WorkError(f"{name}: {type(cause).__name__}: {cause}; what is committed stays") from error
            self._idle[pool].append(worker)
            self._schedule.retry(task, unit, f"{type(cause).__name__}: {cause}")
            return None
        except ray.exceptions.RayError as error:
            # The worker, its node or its memory is gone. Idle workers may have gone with it: new ones cost a start each.
            self._num_workers[pool] -= 1 + len(self._idle[pool])
            self._idle[pool].clear()
            reason = str(error).strip().splitlines()[0][:200]
            self._schedule.retry(task, unit, f"its worker was lost ({type(error).__name__}: {reason})")
            return None
        self._idle[pool].append(worker)
        return row
