"""Pools of workers: which works share processes, how many of them there may be, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from manifests.errors import RequestError
from manifests.recipes import RecipeModel
from pipeline.works import Work


class PoolConfig(RecipeModel):
    """How a pool grows and what its processes see. Pools are named by ``Resources.pool`` of their parts."""

    # Workers that stay once they were started, however long they idle, while no other pool lacks the memory.
    min_workers: NonNegativeInt = 0
    # null: as many as there are CPUs (and GPUs, for parts that need them).
    max_workers: PositiveInt | None = None
    # An idle worker above the minimum is ended after so long: its memory goes to pools that have work.
    idle_s: float = Field(default=60.0, ge=0)
    # Ray's runtime_env of its processes ({pip: [...]}, {env_vars: {...}}, ...): models with clashing pins live together.
    runtime_env: dict[str, Any] = {}

    @model_validator(mode="after")
    def _min_fits(self) -> PoolConfig:
        if self.max_workers is not None and self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        return self


@dataclass(frozen=True)
class Pool:
    """The works that one kind of process does, and what one process needs."""

    name: str
    members: tuple[int, ...]  # positions of its works
    num_cpus: float
    num_gpus: float
    memory_bytes: int
    config: PoolConfig


def make_pools(works: Sequence[Work], configs: Mapping[str, PoolConfig]) -> dict[str, Pool]:
    """Pools by name; what ``configs`` says of other pools is left aside."""
    members: dict[str, list[int]] = {}
    for number, work in enumerate(works):
        members.setdefault(work.resources.pool, []).append(number)
    found = {}
    for name, numbers in members.items():
        needs = [works[number].resources for number in numbers]
        found[name] = Pool(
            name,
            tuple(numbers),
            max(need.num_cpus for need in needs),
            max(need.num_gpus for need in needs),
            max(need.memory_bytes for need in needs),
            configs.get(name, PoolConfig()),
        )
    return found


def check_pools(pools: Mapping[str, Pool], works: Sequence[Work], num_gpus: float, memory_bytes: int) -> None:
    """Raises RequestError for a pool that a cluster with so many GPUs and so much memory can never place a worker of."""
    sharing = sum(pool.num_gpus > 0 for pool in pools.values())
    for pool in pools.values():
        parts = ", ".join(works[number].output for number in pool.members)
        if pool.num_gpus > num_gpus:
            raise RequestError(
                f"{parts}: {pool.num_gpus:g} GPUs a worker, the Ray cluster has {num_gpus:g}; "
                "give the part device: cpu, or join a cluster with GPUs"
            )
        if pool.memory_bytes > memory_bytes:
            raise RequestError(
                f"{parts}: {pool.memory_bytes >> 20} MiB a worker, the Ray cluster has {memory_bytes >> 20} MiB; join a larger one"
            )
        others = [other for other in pools.values() if other is not pool]
        kept = sum(min(o.config.min_workers, gpu_workers(o, num_gpus, sharing)) * o.num_gpus for o in others if o.num_gpus)
        if pool.num_gpus and pool.num_gpus + kept > num_gpus:
            raise RequestError(
                f"{parts}: {pool.num_gpus:g} GPUs a worker, but min_workers of other pools keep {kept:g} of the Ray cluster's "
                f"{num_gpus:g}; set their min_workers to 0, or give each part a smaller share of a GPU"
            )


def gpu_workers(pool: Pool, num_gpus: float, sharing: int) -> int:
    """Most workers of a GPU pool where ``sharing`` pools share the GPUs evenly, so that those asked for can be placed."""
    return max(1, int(num_gpus / sharing / pool.num_gpus))
