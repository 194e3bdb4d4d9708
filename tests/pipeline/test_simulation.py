"""The simulated build: bounds that no schedule beats, closed form and play agreeing, pools, setup, order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rates import PartRate, Rates
from pipeline.simulation import Cluster, make_pools, most_workers, pace, play

CHAIN = (
    PartRate(part="ingest", wall_s=0.01, cpu_s=0.008, num_bytes=16_000, num_objects=6),
    PartRate(part="spans/vad", reads=("ingest",), wall_s=0.02, cpu_s=0.02, setup_s=1.0),
    PartRate(part="clips/turns", reads=("ingest", "spans/vad"), wall_s=0.001, cpu_s=0.001),
    PartRate(part="layers/turns/asr", reads=("clips/turns",), pool="asr", wall_s=0.05, cpu_s=0.05, setup_s=5.0),
    PartRate(part="layers/turns/dnsmos", reads=("clips/turns",), pool="onnx", wall_s=0.03, cpu_s=0.03, setup_s=0.5),
)


def rates(parts=CHAIN, **facts) -> Rates:
    return Rates(**{"parts": parts, "unit_audio_s": (60.0, 90.0, 30.0), "worker_start_s": 2.0, "dispatch_s": 0.005, **facts})


def with_gpu(asr: float = 1.0, codes: float = 0.5) -> Rates:
    gpu = PartRate(
        part="layers/turns/asr", reads=("clips/turns",), pool="asr", wall_s=0.05, cpu_s=0.01, num_gpus=asr, setup_s=9.0
    )
    more = PartRate(part="layers/turns/codes", reads=("clips/turns",), pool="codes", wall_s=0.01, cpu_s=0.01, num_gpus=codes)
    return rates((*CHAIN[:3], gpu, more))


def test_one_cpu_takes_the_sum_of_all_there_is_to_do():
    units = [60.0, 90.0, 30.0]
    played = play(rates(), units, Cluster(1))
    work_s = sum(part.wall_s * sum(units) + 3 * 0.005 for part in CHAIN)
    loading_s = 1.0 + 5.0 + 0.5 + 3 * 2.0  # three models, one worker a pool
    assert played.wall_s == pytest.approx(work_s + loading_s)
    assert played.num_workers == {"signal": 1, "asr": 1, "onnx": 1}
    assert played.busy_cpu_share == pytest.approx(1.0)


def test_a_chain_cannot_be_shortened_by_cpus():
    one = play(rates(), [60.0], Cluster(64))
    path = [part for part in CHAIN if part.part != "layers/turns/dnsmos"]  # ASR is the longer branch
    # The first three share a worker.
    assert one.wall_s == pytest.approx(sum(part.wall_s * 60 + part.setup_s + 0.005 for part in path) + 2 * 2.0)


@given(
    walls=st.lists(st.floats(0.001, 0.1), min_size=5, max_size=5),
    num_cpus=st.integers(1, 12),
    units=st.lists(st.floats(1, 600), min_size=1, max_size=25),
)
def test_no_play_beats_the_cpus_or_wastes_more_than_list_scheduling_may(walls, num_cpus, units):
    """Graham's bound for list schedules: total work over CPUs, plus the longest chain."""
    parts = [
        part.model_copy(update={"wall_s": wall, "setup_s": 0.0, "pool": "one"}) for part, wall in zip(CHAIN, walls, strict=True)
    ]
    found = rates(parts, worker_start_s=0.0, dispatch_s=0.0)
    work_s = sum(walls) * sum(units)
    played = play(found, units, Cluster(num_cpus))
    assert played.wall_s >= work_s / num_cpus - 1e-9
    assert played.wall_s <= work_s / num_cpus + sum(walls) * max(units) + 1e-9


def assert_agree(found: Rates, cluster: Cluster, bottleneck: str) -> None:
    """Twice as many units take so much longer as the closed form says; all of them, its ramp and the last units' chain more."""
    units = [60.0, 90.0, 30.0] * (8 * cluster.num_cpus)
    expected = pace(found, cluster)
    assert expected.bottleneck == bottleneck
    half, whole = play(found, units[: len(units) // 2], cluster), play(found, units, cluster)
    speed = (whole.audio_s - half.audio_s) / (whole.wall_s - half.wall_s)
    assert speed == pytest.approx(expected.speed, rel=0.03)
    chain_s = max(units) * sum(part.wall_s for part in found.parts)
    in_closed_form_s = whole.audio_s / expected.speed + expected.ramp_s
    assert whole.wall_s == pytest.approx(in_closed_form_s, rel=0.04, abs=chain_s)


@pytest.mark.parametrize("num_cpus", [1, 2, 7, 32])
def test_closed_form_and_play_agree_where_cpus_bound(num_cpus):
    assert_agree(rates(), Cluster(num_cpus), "CPUs")


@pytest.mark.parametrize("num_gpus", [2, 4, 8])
def test_closed_form_and_play_agree_where_gpus_bound(num_gpus):
    assert_agree(with_gpu(), Cluster(16, num_gpus), "pool asr")
    assert play(with_gpu(), [60.0] * 40, Cluster(16, num_gpus)).num_workers["asr"] == num_gpus // 2


def test_closed_form_and_play_agree_where_the_driver_bounds():
    assert_agree(rates(dispatch_s=0.5), Cluster(32), "driver")


def test_gpus_are_shared_as_the_engine_does_and_balanced_by_need():
    found = pace(with_gpu(), Cluster(64, 8))
    assert found.most_workers == {"signal": 64, "asr": 4, "codes": 8}
    # Five sixths of the GPU time is the ASR's: sharing by need would give it 8 * 0.05 / 0.055 GPUs.
    assert found.balanced_workers["asr"] == math.ceil(8 * 0.05 / 0.055)
    assert found.balanced_speed > found.speed
    held = found.balanced_speed * sum(pool.load * pool.num_gpus for pool in found.pools)
    assert held == pytest.approx(8)


@given(num_cpus=st.integers(1, 512), num_gpus=st.integers(1, 64), asr=st.sampled_from([0.25, 0.5, 1.0]))
def test_no_bound_is_below_the_bottleneck_and_no_pool_busier_than_it_may(num_cpus, num_gpus, asr):
    found = pace(with_gpu(asr), Cluster(num_cpus, num_gpus))
    assert found.speed == min(found.limits.values()) == found.limits[found.bottleneck]
    assert all(found.busy_workers[name] <= most + 1e-9 for name, most in found.most_workers.items())
    assert found.balanced_speed >= found.speed or found.bottleneck.startswith("pool")


def test_the_store_bounds_a_build_of_tiny_units():
    found = pace(rates(unit_audio_s=(0.01,), dispatch_s=0.0), Cluster(10_000))
    assert found.bottleneck == "store writes"
    assert found.speed == pytest.approx(3500 * 0.01 / 14)


def test_pools_take_what_their_most_demanding_part_needs():
    wide = CHAIN[3].model_copy(update={"num_cpus": 4.0})
    pools = make_pools(rates((*CHAIN[:3], wide, CHAIN[4])))
    assert most_workers(pools, Cluster(16)) == {"signal": 16, "asr": 4, "onnx": 16}
    played = play(rates((*CHAIN[:3], wide)), [60.0] * 20, Cluster(2))  # wider than the cluster: it runs alone
    assert played.wall_s > 0
