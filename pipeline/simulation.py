"""A build on a cluster that is not there: its speed in closed form, and the engine's own schedule played through.

Both take measured rates (``pipeline.rates``) and the rules of the Ray engine: the earliest unit first, tasks whose CPUs fit,
a worker of its pool for each, models loaded at a worker's first task, GPU pools sharing the GPUs evenly. The closed form says
how fast a long build runs and what bounds it; the play adds the start, the end and what the order of tasks costs.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

from pipeline.rates import PartRate, Rates
from pipeline.schedule import Schedule, Task

if TYPE_CHECKING:
    from pipeline.works import Work

S3_WRITES_A_S = 3500.0  # PUT, COPY, POST and DELETE a second that S3 takes for one prefix (its performance guidelines)


@dataclass(frozen=True)
class Cluster:
    """What the simulated machines have."""

    num_cpus: int
    num_gpus: float = 0.0


@dataclass(frozen=True)
class Pool:
    """Parts that share workers. Loads are worker-seconds an audio-second."""

    name: str
    parts: tuple[str, ...]
    num_cpus: float  # that one task holds
    num_gpus: float  # that one worker holds
    load: float


@dataclass(frozen=True)
class Pace:
    """A long build in closed form. Speeds are audio-seconds a second (equally audio-hours an hour)."""

    speed: float
    bottleneck: str
    limits: dict[str, float]  # what could bound it -> the speed it allows; the bottleneck's is the smallest
    pools: tuple[Pool, ...]
    most_workers: dict[str, int]  # as the engine places them
    busy_workers: dict[str, float]  # of a pool, on average at this speed
    balanced_workers: dict[str, int]  # that the cluster could keep busy, were GPUs shared by need
    balanced_speed: float
    # Starting workers and loading models, of the pool that bounds, else of all, spread over the CPUs; and stopping.
    ramp_s: float


@dataclass(frozen=True)
class Played:
    """One simulated build."""

    wall_s: float
    audio_s: float
    busy_cpu_share: float  # CPUs held by a task, of CPUs times wall
    num_workers: dict[str, int]


def make_pools(rates: Rates) -> tuple[Pool, ...]:
    """The pools of some rates; a task holds what the most demanding part of its pool needs, as the engine has it."""
    mean_s = _mean_unit_s(rates)
    members: dict[str, list[PartRate]] = {}
    for part in rates.parts:
        members.setdefault(part.pool, []).append(part)
    return tuple(
        Pool(
            name,
            tuple(part.part for part in parts),
            max(part.num_cpus for part in parts),
            max(part.num_gpus for part in parts),
            sum(part.wall_s + (part.unit_wall_s + rates.dispatch_s) / mean_s for part in parts),
        )
        for name, parts in members.items()
    )


def most_workers(pools: Sequence[Pool], cluster: Cluster) -> dict[str, int]:
    """Workers that the engine allows each pool: its rule, without a ``max_workers`` of the recipe."""
    sharing = sum(pool.num_gpus > 0 for pool in pools)
    found = {}
    for pool in pools:
        most = max(1, int(cluster.num_cpus / max(1.0, pool.num_cpus)))
        found[pool.name] = min(most, max(1, int(cluster.num_gpus / sharing / pool.num_gpus))) if pool.num_gpus else most
    return found


def pace(rates: Rates, cluster: Cluster) -> Pace:
    """Speed and bottleneck of a long build: the smallest of what CPUs, pools, driver and store allow."""
    pools, mean_s = make_pools(rates), _mean_unit_s(rates)
    most = most_workers(pools, cluster)
    cpu_load = sum(pool.load * pool.num_cpus for pool in pools)
    gpu_load = sum(pool.load * pool.num_gpus for pool in pools)
    shared = {
        "CPUs": _over(cluster.num_cpus, cpu_load),
        # What a task waits for the driver is the most that the driver works for it.
        "driver": _over(mean_s, len(rates.parts) * rates.dispatch_s),
        "store writes": _over(S3_WRITES_A_S * mean_s, sum(part.num_objects for part in rates.parts)),
    }
    limits = shared | {f"pool {pool.name}": _over(most[pool.name], pool.load) for pool in pools}
    bottleneck = min(limits, key=lambda name: limits[name])
    speed = limits[bottleneck]
    balanced = min(*shared.values(), _over(cluster.num_gpus, gpu_load)) if gpu_load else min(shared.values())
    setup = {pool.name: sum(part.setup_s for part in rates.parts if part.pool == pool.name) for pool in pools}
    started = {pool.name: min(most[pool.name], math.ceil(speed * pool.load)) for pool in pools}
    ramp_s = sum(started[name] * (rates.worker_start_s + setup_s) for name, setup_s in setup.items()) / cluster.num_cpus
    if bottleneck.startswith("pool "):
        ramp_s = rates.worker_start_s + setup[bottleneck.removeprefix("pool ")]
    return Pace(
        speed=speed,
        bottleneck=bottleneck,
        limits=limits,
        pools=pools,
        most_workers=most,
        busy_workers={pool.name: speed * pool.load for pool in pools},
        balanced_workers={pool.name: math.ceil(balanced * pool.load) for pool in pools},
        balanced_speed=balanced,
        ramp_s=ramp_s + rates.stop_s,
    )


class _Ordered(NamedTuple):
    """What a schedule looks at of a work."""

    output: str
    reads: Mapping[str, str]


@dataclass(eq=False)
class _Worker:
    pool: str
    loaded: set[int] = field(default_factory=set)  # parts


def play(rates: Rates, units: Sequence[float], cluster: Cluster, driver_share: float = 1.0) -> Played:
    """Build units of that many audio-seconds, in this order, task by task.

    One driver starts one task after the other; ``driver_share`` of its time is for these units.
    """
    pools = {pool.name: pool for pool in make_pools(rates)}
    most = most_workers(list(pools.values()), cluster)
    works = [_Ordered(part.part, dict.fromkeys(part.reads, "")) for part in rates.parts]
    now = 0.0
    schedule = Schedule(
        cast("list[Work]", works), [Task(u, w) for u in range(len(units)) for w in range(len(works))], clock=lambda: now
    )
    pool_of = [pools[part.pool] for part in rates.parts]
    idle: dict[str, list[_Worker]] = {name: [] for name in pools}
    num_workers = dict.fromkeys(pools, 0)
    running: list[tuple[float, int, Task, _Worker]] = []
    order, free, held_s, driver_free_at = itertools.count(), float(cluster.num_cpus), 0.0, 0.0

    def fits(task: Task) -> bool:
        pool = pool_of[task.work]
        if pool.num_cpus > free and running:
            return False
        return bool(idle[pool.name]) or num_workers[pool.name] < most[pool.name]

    while schedule:
        task = schedule.start(fits) if now >= driver_free_at else None
        if task is not None:
            driver_free_at = now + rates.dispatch_s / driver_share
            pool, part = pool_of[task.work], rates.parts[task.work]
            lasts_s = rates.dispatch_s + part.unit_wall_s + part.wall_s * units[task.unit]
            if idle[pool.name]:
                worker = idle[pool.name].pop()
            else:
                worker = _Worker(pool.name)
                num_workers[pool.name] += 1
                lasts_s += rates.worker_start_s
            if task.work not in worker.loaded:
                worker.loaded.add(task.work)
                lasts_s += part.setup_s
            free -= pool.num_cpus
            held_s += lasts_s * min(pool.num_cpus, cluster.num_cpus)
            heapq.heappush(running, (now + lasts_s, next(order), task, worker))
        elif now < driver_free_at and (not running or driver_free_at < running[0][0]):
            now = driver_free_at
        else:
            now, _, task, worker = heapq.heappop(running)
            free += pools[worker.pool].num_cpus
            idle[worker.pool].append(worker)
            schedule.finish(task)
    wall_s = now + rates.stop_s
    return Played(wall_s, sum(units), held_s / max(wall_s * cluster.num_cpus, 1e-9), num_workers)


def _mean_unit_s(rates: Rates) -> float:
    return max(sum(rates.unit_audio_s) / len(rates.unit_audio_s), 1e-9)


def _over(value: float, by: float) -> float:
    return value / by if by > 0 else math.inf
