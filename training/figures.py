"""What a run would do, in figures: stages, the mix that is really there, operations, memory and hours on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from manifests.console import aligned, counted, duration, number, share, volume
from training.machines import Machine
from training.memory import StepMemory
from training.workload import Assumptions


@dataclass(frozen=True)
class TaskPlan:
    """One task of a stage. What only a pack can tell is None without one."""

    share: float  # of the stage's tokens, of the mix that is really there
    examples: float = 0.0  # that the stage draws
    tokens: float = 0.0  # that the stage draws
    mean_tokens: float = 0.0  # of an example
    documents: int | None = None
    available_tokens: int | None = None
    refused: Mapping[str, int] | None = None  # reason -> documents
    tails: int | None = None  # audio of which the end is too short to be heard, and dropped

    @property
    def passes(self) -> float | None:
        """How often each document is drawn."""
        return self.examples / self.documents if self.documents else None

    def cells(self, task: str) -> list[str]:
        documents = "" if self.documents is None else counted(self.documents, "document")
        passes = "" if self.passes is None else f"{number(self.passes)} passes"
        tokens = f"{number(self.tokens)} tokens" if self.tokens else ""
        return [f"  {task}", share(self.share), tokens, documents, passes]


@dataclass(frozen=True)
class StagePlan:
    """One stage in figures."""

    name: str
    steps: int
    tokens: int  # that it draws; 0 for a stage of kind ctc
    trainable_parameters: int
    rates: Mapping[str, tuple[float, float]]  # group -> learning rate after warm-up and at the end
    tasks: Mapping[str, TaskPlan]
    skipped: tuple[str, ...]  # tasks that no document serves
    new_rows: int  # of the vocabulary, drawn at the stage's start
    flops: Mapping[str, float]  # part of the model -> operations, forward, backward and recomputed
    memory: StepMemory
    device_hours: float
    wall_hours: float

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["memory"]["peak"] = self.memory.peak
        for task, plan in self.tasks.items():
            value["tasks"][task]["passes"] = plan.passes
        return value

    def lines(self, machine: Machine) -> list[str]:
        """For people."""
        rates = ", ".join(f"{group} {begin:g} → {end:g}" for group, (begin, end) in self.rates.items())
        tokens = f", {number(self.tokens)} tokens" if self.tokens else ""
        lines = [f"{self.name}: {self.steps:,} steps{tokens}; {self.trainable_parameters:,} parameters trained ({rates})"]
        lines += [line.rstrip() for line in aligned([plan.cells(task) for task, plan in self.tasks.items()])]
        for task, plan in self.tasks.items():
            if plan.refused:
                lines.append(f"  {task} refused: " + ", ".join(f"{reason} {n}" for reason, n in sorted(plan.refused.items())))
            if plan.tails:
                lines.append(f"  {task} dropped: {counted(plan.tails, 'tail of audio', 'tails of audio')}")
        if self.skipped:
            lines.append(f"  skipped, since no document serves them: {', '.join(self.skipped)}")
        if self.new_rows:
            lines.append(f"  the vocabulary grows: {counted(self.new_rows, 'row')} are drawn to look like the known ones")
        total = sum(self.flops.values())
        parts = ", ".join(f"{part} {share(flops / total)}" for part, flops in self.flops.items() if flops)
        lines.append(f"  {total:.3g} operations ({parts}); {volume(self.memory.peak)} a device at most")
        return [*lines, f"  {_hours(self.wall_hours, machine)}"]


@dataclass(frozen=True)
class Plan:
    """A run in figures."""

    model: str
    parameters: int
    machine: Machine
    assumed: Assumptions | None  # what stands for documents where there is no pack
    stages: tuple[StagePlan, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "parameters": self.parameters,
            "machine": self.machine.model_dump(mode="json"),
            "assumed": asdict(self.assumed) if self.assumed else None,
            "stages": [stage.to_json() for stage in self.stages],
        }

    def lines(self) -> list[str]:
        """For people."""
        machine = self.machine
        devices = f"{machine.num_devices} × " if machine.num_devices > 1 else ""
        lines = [
            f"model {self.model}: {self.parameters:,} parameters",
            f"machine {machine.name}: {devices}{volume(machine.memory_bytes)}, {devices}{number(machine.flops_per_s / 1e12)} TFLOP/s, "
            f"of which {share(machine.efficiency)} are assumed to be reached",
        ]
        if self.assumed:
            lines.append(f"no pack: documents are assumed ({self.assumed.line()})")
        lines += [line for stage in self.stages for line in stage.lines(machine)]
        tokens = sum(stage.tokens for stage in self.stages)
        return [*lines, f"in all: {number(tokens)} tokens, {_hours(sum(stage.wall_hours for stage in self.stages), machine)}"]


def _hours(wall_hours: float, machine: Machine) -> str:
    """Wall time for people, and on GPUs the hours that all of them are paid for."""
    gpu_hours = f"{number(wall_hours * machine.num_devices)} GPU-hours, " if machine.kind == "cuda" else ""
    return f"{gpu_hours}{duration(wall_hours * 3600)} of wall time"
