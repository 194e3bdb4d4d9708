"""What runs cost, part by part: audio-hours a core-hour, what was idle, what was saved, what it comes to in money.

A *core-hour* is an hour of CPU time. What is paid for is something else: a worker holds its CPUs from the start of a unit to
its commit, and a cluster is paid for whether it works or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.console import aligned, duration, hours, money, number, share, volume
from pipeline.heartbeat import SUMMED, Heartbeat, PartProgress


@dataclass(frozen=True)
class Prices:
    """Money an hour; a price of None leaves that resource out."""

    core_hour: float | None = None
    gpu_hour: float | None = None
    currency: str = "USD"

    def of(self, core_s: float, gpu_s: float) -> float | None:
        """What that many seconds of CPUs and GPUs come to; None without any price."""
        if self.core_hour is None and self.gpu_hour is None:
            return None
        return core_s / 3600 * (self.core_hour or 0.0) + gpu_s / 3600 * (self.gpu_hour or 0.0)


@dataclass(frozen=True)
class PartCost:
    """One part, over all runs. Shares are 0 to 1; None where there is nothing to divide by."""

    part: str
    num_units: int
    audio_h: float
    core_h: float
    gpu_h: float
    audio_h_per_core_h: float | None
    audio_h_per_gpu_h: float | None
    model_share: float | None  # of the CPU time, inside the model
    setup_share: float | None  # of the worker's time, loading it
    gated_audio_h: float
    carried_audio_h: float
    num_errors: int
    num_bytes: int
    peak_rss_bytes: int
    cost: float | None  # of the CPUs and GPUs that its workers held


@dataclass(frozen=True)
class CostTable:
    """``parts`` in the order of the runs, and the runs as a whole."""

    parts: list[PartCost]
    num_runs: int
    wall_s: float
    core_h: float
    gpu_h: float
    paid_core_h: float | None  # CPUs times wall; None where a run's engine did not tell its CPUs
    paid_gpu_h: float | None
    idle_share: float | None  # of the CPUs times wall, with no CPU time of a worker in it
    cost: float | None  # of what was paid for
    currency: str
    processes: dict[str, tuple[str, int]]  # host:pid -> what it is, peak resident bytes


def cost_table(runs: Sequence[Heartbeat], prices: Prices | None = None) -> CostTable:
    """The costs of some runs together."""
    prices = prices or Prices()
    sums: dict[str, PartProgress] = {}
    held_core_s: dict[str, float] = {}
    processes: dict[str, tuple[str, int]] = {}
    for run in runs:
        for part in run.parts:
            _add(sums.setdefault(part.part, PartProgress(part.part, 0)), part)
            held_core_s[part.part] = held_core_s.get(part.part, 0.0) + part.wall_s * part.num_cpus
        for process, (what, peak) in run.processes.items():
            processes[process] = (what, max(peak, processes.get(process, ("", 0))[1]))
    parts = [_part_cost(part, prices.of(held_core_s[part.part], part.gpu_s)) for part in sums.values() if part.num_done]
    paid_core_s = _paid_s([(run.num_cpus, run.wall_s) for run in runs])
    paid_gpu_s = _paid_s([(run.num_gpus, run.wall_s) for run in runs])
    core_h = sum(part.core_h for part in parts)
    return CostTable(
        parts=parts,
        num_runs=len(runs),
        wall_s=sum(run.wall_s for run in runs),
        core_h=core_h,
        gpu_h=sum(part.gpu_h for part in parts),
        paid_core_h=None if paid_core_s is None else paid_core_s / 3600,
        paid_gpu_h=None if paid_gpu_s is None else paid_gpu_s / 3600,
        idle_share=max(0.0, 1.0 - core_h * 3600 / paid_core_s) if paid_core_s else None,
        cost=None if paid_core_s is None else prices.of(paid_core_s, paid_gpu_s or 0.0),
        currency=prices.currency,
        processes=processes,
    )


def lines(table: CostTable) -> list[str]:
    """The table for people."""
    if not table.parts:
        return ["no unit was worked on: no costs"]
    has_gpu, has_price = table.gpu_h > 0, any(part.cost is not None for part in table.parts)
    head = ["part", "units", "audio", "CPU time", "h/core-h", *(["h/GPU-h"] if has_gpu else []), "in model", "loading"]
    head += ["gated", "carried", "errors", "written", "peak memory", *(["cost"] if has_price else [])]
    rows = [head]
    for part in table.parts:
        rows.append(
            [
                *(part.part, number(part.num_units), hours(part.audio_h), hours(part.core_h)),
                number(part.audio_h_per_core_h),
                *([number(part.audio_h_per_gpu_h)] if has_gpu else []),
                *(share(part.model_share), share(part.setup_share), hours(part.gated_audio_h), hours(part.carried_audio_h)),
                *(number(part.num_errors), volume(part.num_bytes), volume(part.peak_rss_bytes)),
                *([money(part.cost or 0.0, table.currency)] if has_price else []),
            ]
        )
    return [*aligned(rows), _whole(table), "peak memory: " + _peaks(table.processes)]


def _whole(table: CostTable) -> str:
    said = f"{duration(table.wall_s)} of wall time, {hours(table.core_h)} of CPU time"
    said += f", {hours(table.gpu_h)} of GPUs" if table.gpu_h else ""
    if table.paid_core_h is not None:
        said += f"; CPUs were held for {hours(table.paid_core_h)}, {share(table.idle_share)} of it idle"
    if table.cost is not None:
        said += f"; {money(table.cost, table.currency)} for all that was held"
    return said


def _peaks(processes: dict[str, tuple[str, int]]) -> str:
    """Processes of a kind together, the largest first."""
    kinds: dict[str, list[int]] = {}
    for what, peak in processes.values():
        kinds.setdefault(what, []).append(peak)
    said = []
    for what, peaks in sorted(kinds.items(), key=lambda kind: -max(kind[1])):
        said.append(f"{what} {volume(max(peaks))}" + (f" (largest of {len(peaks)})" if len(peaks) > 1 else ""))
    return ", ".join(said) or "not known"


def _add(total: PartProgress, part: PartProgress) -> None:
    total.num_done += part.num_done
    for name in SUMMED:
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.peak_rss_bytes = max(total.peak_rss_bytes, part.peak_rss_bytes)


def _part_cost(part: PartProgress, cost: float | None) -> PartCost:
    return PartCost(
        part=part.part,
        num_units=part.num_done,
        audio_h=part.audio_s / 3600,
        core_h=part.cpu_s / 3600,
        gpu_h=part.gpu_s / 3600,
        audio_h_per_core_h=_over(part.audio_s, part.cpu_s),
        audio_h_per_gpu_h=_over(part.audio_s, part.gpu_s),
        model_share=_over(part.model_cpu_s, part.cpu_s),
        setup_share=_over(part.setup_s, part.wall_s),
        gated_audio_h=part.gated_audio_s / 3600,
        carried_audio_h=part.carried_audio_s / 3600,
        num_errors=part.num_errors,
        num_bytes=part.num_bytes,
        peak_rss_bytes=part.peak_rss_bytes,
        cost=cost,
    )


def _over(value: float, by: float) -> float | None:
    return value / by if by > 0 else None


def _paid_s(held: Sequence[tuple[float | None, float]]) -> float | None:
    """Resources times wall over the runs; None where one did not tell."""
    if not held or any(count is None for count, _ in held):
        return None
    return sum((count or 0.0) * wall_s for count, wall_s in held)
