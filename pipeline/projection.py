"""A long build on a large cluster: days, money, what bounds it, and what it asks of store and driver."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.console import aligned, duration, hours, money, number, share, volume
from pipeline.costs import Prices
from pipeline.rates import Rates
from pipeline.simulation import S3_WRITES_A_S, Cluster, Pace, make_pools, most_workers, pace, play

LIST_PAGE = 1000  # keys that S3 returns for one request
UNITS_A_CPU = 4  # played through, at each of two lengths


@dataclass(frozen=True)
class Nodes:
    """Equal machines."""

    num_nodes: int
    cpus: int  # of one
    gpus: float = 0.0

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.num_nodes * self.cpus, self.num_nodes * self.gpus)


@dataclass(frozen=True)
class PoolSize:
    """One pool of the projection."""

    pool: str
    parts: list[str]
    workers: int  # that the engine allows
    busy_workers: float
    balanced_workers: int


@dataclass(frozen=True)
class Projection:
    """What a build of ``audio_h`` takes. ``played_wall_s`` is by playing the schedule, ``wall_s`` in closed form."""

    audio_h: float
    nodes: Nodes
    speed: float  # audio-hours an hour, once it runs
    bottleneck: str
    limits: dict[str, float | None]  # audio-hours an hour that each allows; None: any
    pools: list[PoolSize]
    balanced_speed: float
    wall_s: float
    played_wall_s: float
    played_nodes: int  # whose share of the build was played
    busy_cpu_share: float
    core_h: float  # CPU time
    gpu_h: float  # that workers hold a GPU
    cost: float | None
    currency: str
    num_bytes: float
    num_units: int
    unit_audio_s: float  # of one, on average
    num_tasks: int
    tasks_a_s: float
    writes_a_s: float
    num_commits: int
    list_requests: int  # to list all commits once


def project(
    rates: Rates, audio_h: float, nodes: Nodes, prices: Prices | None = None, unit_audio_s: float | None = None
) -> Projection:
    """A build of ``audio_h`` hours by measured rates, in units as they were measured or of ``unit_audio_s`` on average."""
    prices = prices or Prices()
    if unit_audio_s is not None:
        factor = unit_audio_s * len(rates.unit_audio_s) / max(sum(rates.unit_audio_s), 1e-9)
        rates = rates.model_copy(update={"unit_audio_s": tuple(length * factor for length in rates.unit_audio_s)})
    audio_s, cluster = audio_h * 3600, nodes.cluster
    found = pace(rates, cluster)
    mean_s = sum(rates.unit_audio_s) / len(rates.unit_audio_s)
    num_units = max(1, math.ceil(audio_s / max(mean_s, 1e-9)))
    wall_s = audio_s / found.speed + found.ramp_s
    played_wall_s, played_nodes, busy = _play_share(rates, num_units, nodes)
    num_tasks = num_units * len(rates.parts)
    return Projection(
        audio_h=audio_h,
        nodes=nodes,
        speed=found.speed,
        bottleneck=found.bottleneck,
        limits={name: None if math.isinf(limit) else limit for name, limit in found.limits.items()},
        pools=_pool_sizes(found),
        balanced_speed=found.balanced_speed,
        wall_s=wall_s,
        played_wall_s=played_wall_s,
        played_nodes=played_nodes,
        busy_cpu_share=busy,
        core_h=(audio_s * sum(p.cpu_s for p in rates.parts) + num_units * sum(p.unit_cpu_s for p in rates.parts)) / 3600,
        gpu_h=sum(pool.load * pool.num_gpus for pool in found.pools) * audio_h,
        cost=prices.of(played_wall_s * cluster.num_cpus, played_wall_s * cluster.num_gpus),
        currency=prices.currency,
        num_bytes=audio_s * sum(part.num_bytes for part in rates.parts),
        num_units=num_units,
        unit_audio_s=mean_s,
        num_tasks=num_tasks,
        tasks_a_s=num_tasks / played_wall_s,
        writes_a_s=num_units * sum(part.num_objects for part in rates.parts) / played_wall_s,
        num_commits=num_tasks,
        list_requests=math.ceil(num_tasks / LIST_PAGE),
    )


def _play_share(rates: Rates, num_units: int, nodes: Nodes) -> tuple[float, int, float]:
    """(wall seconds of the whole build, nodes played, share of CPU time held), from playing one node's share of it.

    A long build is played at two lengths; what lies beyond goes on at the pace between them. Where the pools of one node
    cannot be a node's share of the cluster's pools (fewer workers than nodes), the whole cluster is played.
    """
    is_even = _divides(rates, nodes)
    played = Cluster(nodes.cpus, nodes.gpus) if is_even else nodes.cluster
    num_played = math.ceil(num_units / nodes.num_nodes) if is_even else num_units
    chance = random.Random(0)
    lengths = chance.choices(rates.unit_audio_s, k=min(num_played, 2 * UNITS_A_CPU * played.num_cpus))
    driver_share = played.num_cpus / nodes.cluster.num_cpus
    whole = play(rates, lengths, played, driver_share)
    wall_s = whole.wall_s
    if num_played > len(lengths):
        half = play(rates, lengths[: len(lengths) // 2], played, driver_share)
        # By audio, not by units: the two halves of the draw differ.
        a_second = (whole.wall_s - half.wall_s) / (whole.audio_s - half.audio_s)
        mean_s = sum(rates.unit_audio_s) / len(rates.unit_audio_s)
        wall_s += (num_played * mean_s - whole.audio_s) * a_second
    return wall_s, 1 if is_even else nodes.num_nodes, whole.busy_cpu_share


def _divides(rates: Rates, nodes: Nodes) -> bool:
    """Whether the cluster's pools are those of one node, times the nodes."""
    pools = make_pools(rates)
    one, every = most_workers(pools, Cluster(nodes.cpus, nodes.gpus)), most_workers(pools, nodes.cluster)
    return all(one[name] * nodes.num_nodes == every[name] for name in one)


def _pool_sizes(found: Pace) -> list[PoolSize]:
    return [
        PoolSize(
            pool.name,
            list(pool.parts),
            found.most_workers[pool.name],
            found.busy_workers[pool.name],
            found.balanced_workers[pool.name],
        )
        for pool in found.pools
    ]


def lines(projection: Projection) -> list[str]:
    """The projection for people."""
    nodes = projection.nodes
    machines = f"{nodes.num_nodes} nodes of {nodes.cpus} CPUs" + (f" and {number(nodes.gpus)} GPUs" if nodes.gpus else "")
    played = "all nodes" if projection.played_nodes == nodes.num_nodes else "one node's share"
    return [
        f"{number(projection.audio_h)} audio-hours on {machines}: {duration(projection.played_wall_s)} "
        f"by playing the schedule of {played}, {duration(projection.wall_s)} in closed form",
        f"{number(projection.speed)} audio-hours an hour, bounded by: {projection.bottleneck}; CPUs {share(projection.busy_cpu_share)} busy",
        f"{hours(projection.core_h)} of CPU time, {hours(projection.gpu_h)} of GPUs"
        + ("" if projection.cost is None else f"; {money(projection.cost, projection.currency)} for all machines, idle or not"),
        "",
        *aligned([["what could bound it", "audio-hours an hour"], *_limit_rows(projection)]),
        "",
        *aligned([["pool", "workers", "busy", "balanced"], *_pool_rows(projection.pools)]),
        f"balanced: workers that all machines together keep busy, {number(projection.balanced_speed)} audio-hours an hour",
        "",
        f"storage {volume(projection.num_bytes)}; {number(projection.num_units)} units of {duration(projection.unit_audio_s)}, {number(projection.num_commits)} commits, "
        f"{number(projection.list_requests)} requests to list them",
        f"store: {number(projection.writes_a_s)} writes a second (S3 takes {number(S3_WRITES_A_S)} for one prefix); "
        f"driver: {number(projection.tasks_a_s)} tasks a second",
    ]


def _limit_rows(projection: Projection) -> list[Sequence[str]]:
    known = sorted(projection.limits.items(), key=lambda item: math.inf if item[1] is None else item[1])
    return [[name, "any" if limit is None else number(limit)] for name, limit in known]


def _pool_rows(pools: Sequence[PoolSize]) -> list[Sequence[str]]:
    return [[pool.pool, number(pool.workers), number(pool.busy_workers), number(pool.balanced_workers)] for pool in pools]
