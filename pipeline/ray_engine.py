"""The Ray engine: an actor pool a model, fed by one streaming schedule (``pipeline.ray_run``).

What travels is (work, unit): references to stored audio, never waveforms. A worker that dies loses the task it held; the task
is tried again by a worker that keeps a child process and finds the input that is to blame (``pipeline.keeper``).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from manifests.errors import RequestError, WorkError
from manifests.store import Store
from pipeline.engines import Journal
from pipeline.keeper import portable
from pipeline.limits import LimitsConfig
from pipeline.pools import PoolConfig, check_pools, make_pools
from pipeline.ray_run import Cluster, RayRun
from pipeline.ray_workers import WORKER_ENV, first_line, load_models
from pipeline.schedule import MAX_ATTEMPTS, Schedule, Task
from pipeline.units import Unit
from pipeline.works import Work


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
        cluster = Cluster.now(self._num_cpus)
        if cluster.num_cpus < 1:
            raise RequestError("the Ray cluster has 0 CPUs; a build needs at least 1, start nodes with --num-cpus")
        check_pools(make_pools(works, self._configs), works, cluster.num_gpus, cluster.memory_bytes)

    def load(self, store: Store, works: Sequence[Work], numbers: Sequence[int], limits: LimitsConfig) -> None:
        """Each in a worker of its pool, one after the other: what they take together need not fit."""
        pools = make_pools(works, self._configs)
        for pool in pools.values():
            if wanted := [number for number in pool.members if number in numbers]:
                load_models(wanted, pool, len(pools), store, works, limits)

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
            RayRun(store, units, works, pools, Schedule(works, todo), limits, self._num_cpus).drive(journal)
        finally:
            self.close()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any], done: Callable[[Any], None]) -> list[Any]:
        """Results of independent calls, in the order of the items; ``done`` hears each result as it comes.

        A call that is lost with its worker, or meets an OSError, is tried again; other errors end the whole.
        """
        import ray

        if not ray.is_initialized():
            self._connect()
        most = max(1, Cluster.now(self._num_cpus).num_cpus)
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
                    raise WorkError(f"{function.__name__} on Ray: {first_line(error)}; run the same command to go on") from error
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


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """The result, or the error in a form that travels."""
    try:
        return function(item)
    except Exception as error:
        return portable(error, function.__name__)
