"""Pools: a plan that a cluster can never place is refused before anything runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from manifests.contracts import Resources
from manifests.errors import RequestError
from pipeline.pools import PoolConfig, check_pools, make_pools
from pipeline.ray_run import RayRun


def works(*needs):
    return [SimpleNamespace(output=f"layers/x/{need.pool}", resources=need) for need in needs]


def check(parts, configs, num_gpus):
    check_pools(make_pools(parts, configs), parts, num_gpus, 1 << 40)


def test_a_pool_that_others_leave_no_gpu_is_refused():
    """A worker that stays keeps its GPU: the other pool's worker would be waited for until the end of time."""
    parts = works(Resources(pool="asr", num_gpus=1.0), Resources(pool="codes", num_gpus=1.0))
    stays = {"asr": PoolConfig(min_workers=1)}
    with pytest.raises(RequestError, match=r"codes: 1 GPUs a worker, but min_workers of other pools keep 1 of .* 1; set their"):
        check(parts, stays, num_gpus=1.0)
    check(parts, stays, num_gpus=2.0)
    check(parts, {}, num_gpus=1.0)  # they take turns


def test_workers_that_stay_are_no_more_than_a_pool_may_have():
    parts = works(Resources(pool="asr", num_gpus=0.5), Resources(pool="codes", num_gpus=0.5), Resources(pool="signal"))
    check(parts, {"asr": PoolConfig(min_workers=8), "signal": PoolConfig(min_workers=8)}, num_gpus=1.0)


def test_more_gpus_or_memory_than_there_are_is_refused():
    with pytest.raises(RequestError, match="asr: 1 GPUs a worker, the Ray cluster has 0; give the part device: cpu"):
        check(works(Resources(pool="asr", num_gpus=1.0)), {}, num_gpus=0.0)
    with pytest.raises(RequestError, match="asr: 4194304 MiB a worker, the Ray cluster has 1048576 MiB; join a larger one"):
        check(works(Resources(pool="asr", memory_bytes=1 << 42)), {}, num_gpus=0.0)


def test_idle_workers_are_ended_only_where_that_makes_room():
    """A busy worker holds 6 GB of 10, an idle one 3: a pool of 5 GB has to wait, one of 3 GB takes the idle one's place."""

    def member(pool, gigabytes, running):
        return SimpleNamespace(pool=SimpleNamespace(name=pool, memory_bytes=gigabytes << 30), running=running, idle_since=0.0)

    busy, idle = member("asr", 6, "a task"), member("vad", 3, None)
    ended = []
    run = SimpleNamespace(_workers=[busy, idle], _cluster=SimpleNamespace(memory_bytes=10 << 30), _end=ended.append)
    assert not RayRun._has_memory(run, member("codes", 5, None).pool)
    assert not ended
    assert RayRun._has_memory(run, member("codes", 1, None).pool)
    assert not ended
    assert RayRun._has_memory(run, member("codes", 3, None).pool)
    assert ended == [idle]
