"""The cost table: sums over runs, shares, money, and how it reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.costs import Prices, cost_table, lines
from pipeline.heartbeat import Heartbeat, PartProgress


def run(*parts: PartProgress, wall_s: float = 100.0, num_cpus: float | None = 2, **facts: object) -> Heartbeat:
    beat = Heartbeat("r", list(parts), started_at_s=1000.0, updated_at_s=1000.0 + wall_s, num_cpus=num_cpus)
    for name, value in facts.items():
        setattr(beat, name, value)
    return beat


def part(name: str = "layers/a/asr", **sums: float) -> PartProgress:
    made = PartProgress(name, 4)
    made.num_done, made.audio_s, made.wall_s, made.cpu_s = 4, 7200.0, 90.0, 72.0
    made.model_cpu_s, made.setup_s, made.num_bytes, made.peak_rss_bytes = 54.0, 9.0, 3 << 20, 1 << 30
    for key, value in sums.items():
        setattr(made, key, value)
    return made


def test_one_part_of_one_run():
    table = cost_table([run(part(), processes={"h:1": ("driver", 100 << 20), "h:2": ("worker", 1 << 30)})], Prices(0.04))
    row = table.parts[0]
    assert (row.audio_h, row.core_h, row.audio_h_per_core_h) == (2.0, 0.02, 100.0)
    assert (row.model_share, row.setup_share, row.audio_h_per_gpu_h) == (0.75, 0.1, None)
    assert row.cost == pytest.approx(90 / 3600 * 0.04)
    # Two CPUs for 100 s were held, 72 of their 200 s worked.
    assert table.idle_share == pytest.approx(1 - 72 / 200)
    assert table.cost == pytest.approx(200 / 3600 * 0.04)
    said = "\n".join(lines(table))
    for figure in ("h/core-h", "75%", "10%", "1 GiB", "64% of it idle", "driver 100 MiB", "USD"):
        assert figure in said
    assert "GPU" not in said.splitlines()[0]


def test_gpu_time_is_paid_for_and_shown():
    table = cost_table([run(part(gpu_s=36.0), num_gpus=1)], Prices(0.04, 2.5, "EUR"))
    assert table.parts[0].audio_h_per_gpu_h == 200.0
    assert table.parts[0].cost == pytest.approx(90 / 3600 * 0.04 + 36 / 3600 * 2.5)
    assert table.cost == pytest.approx(200 / 3600 * 0.04 + 100 / 3600 * 2.5)
    assert "h/GPU-h" in lines(table)[0]
    assert "EUR" in lines(table)[1]


def test_a_part_is_paid_for_by_all_the_cpus_that_its_workers_hold():
    table = cost_table([run(part(num_cpus=4.0)), run(part(num_cpus=0.5))], Prices(0.04))
    assert table.parts[0].cost == pytest.approx((4 * 90 + 45) / 3600 * 0.04)


def test_without_prices_and_cpus_told_nothing_is_made_up():
    table = cost_table([run(part(), num_cpus=None)])
    assert (table.idle_share, table.cost, table.parts[0].cost) == (None, None, None)
    assert "idle" not in "\n".join(lines(table))


def test_no_work_no_table():
    assert lines(cost_table([])) == ["no unit was worked on: no costs"]
    assert lines(cost_table([run(PartProgress("ingest", 3))])) == ["no unit was worked on: no costs"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ingest", "vad"]), st.integers(0, 50), st.integers(0, 9), st.integers(0, 1 << 30)), max_size=6
    )
)
def test_runs_add_up(shares):
    """However work falls to runs: sums are kept, peaks are the largest."""
    runs = [run(part(name, cpu_s=float(cpu), num_errors=errors, peak_rss_bytes=peak)) for name, cpu, errors, peak in shares]
    table = cost_table(runs)
    assert table.core_h == pytest.approx(sum(cpu for _, cpu, _, _ in shares) / 3600)
    assert sum(row.num_errors for row in table.parts) == sum(errors for _, _, errors, _ in shares)
    for row in table.parts:
        assert row.peak_rss_bytes == max(peak for name, _, _, peak in shares if name == row.part)
    assert len({len(line) for line in lines(table)[: len(table.parts) + 1]}) == 1  # columns line up
