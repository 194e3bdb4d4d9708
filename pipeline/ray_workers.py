"""What runs on Ray: an actor a worker process, with the works of one pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from manifests.errors import WorkError
from manifests.store import Store
from pipeline.keeper import Keeper, died_loading, portable
from pipeline.limits import LIMITED_ENV, LimitsConfig
from pipeline.pools import Pool
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import Work, do, load

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


class Worker:
    """One process of a pool: the works that it can do, each set up once."""

    def __init__(self, store: Store, works: dict[int, Work], limits: LimitsConfig) -> None:
        self._store, self._works, self._limits = store, works, limits

    def where(self) -> str:
        """The node that it lives on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def load(self, work: int) -> Exception | None:
        """Set the work's part up; the error that it raised, if any."""
        try:
            load(self._works[work])
        except Exception as error:
            return portable(error, self._works[work].output)
        return None

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


def start_worker(pool: Pool, num_pools: int, store: Store, works: Sequence[Work], limits: LimitsConfig) -> Any:
    """A new worker of a pool, one of ``num_pools`` of the build."""
    import ray

    # All workers of all pools together hold less than the CPUs there are: every one of them can be placed.
    share = math.floor(900 / num_pools) / 1000
    env = pool.config.runtime_env
    threads = {name: str(max(1, int(pool.num_cpus))) for name in WORKER_ENV if name.endswith("_NUM_THREADS")}
    runtime_env = {**env, "env_vars": {**WORKER_ENV, **threads, **env.get("env_vars", {})}}
    options = {"num_cpus": share, "num_gpus": pool.num_gpus, "runtime_env": runtime_env, "scheduling_strategy": "SPREAD"}
    return ray.remote(Worker).options(**options).remote(store, {number: works[number] for number in pool.members}, limits)


def load_models(
    numbers: Sequence[int], pool: Pool, num_pools: int, store: Store, works: Sequence[Work], limits: LimitsConfig
) -> None:
    """Load the models of works of one pool in a worker that is ended afterwards. Raises ModelUnavailable and WorkError."""
    import ray

    worker = start_worker(pool, num_pools, store, works, limits)
    try:
        for number in numbers:
            try:
                error = ray.get(worker.load.remote(number))
            except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.RayTaskError) as ended:
                raise no_worker(pool, ended) from ended
            except ray.exceptions.RayError as ended:
                raise died_loading(works[number].output, first_line(ended)) from ended
            if error is not None:
                raise error
    finally:
        ray.kill(worker)  # whoever holds the error holds this frame: the worker would stay, with its model


def no_worker(pool: Pool, error: Exception) -> WorkError:
    """What Ray raises where a pool's processes cannot start, as one line."""
    import ray

    if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
        return WorkError(f"pool {pool.name!r}: its runtime_env cannot be set up: {first_line(error)}")
    return WorkError(f"pool {pool.name!r}: a worker cannot start: {first_line(getattr(error, 'cause', None) or error)}")


def first_line(error: BaseException) -> str:
    """What an exception says first, for a line of ours: Ray's carry whole traces."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
