"""Machines that a run may be planned for: how many devices, how much memory each has, how fast it is at most.

``h100x8`` is eight GPUs of a kind, ``cpu2`` two cores of this machine; anything else is described in a YAML file.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from manifests.console import counted
from manifests.errors import RequestError
from manifests.recipes import RecipeModel, decode_recipe

if TYPE_CHECKING:
    import torch

GIB = 2**30
NAME = re.compile(r"^(?:(?P<cpu>cpu)|(?P<gpu>[a-z0-9]+)x)(?P<number>[1-9]\d*)$")


class Machine(RecipeModel):
    """One machine or a cluster of equal devices."""

    name: str
    kind: Literal["cpu", "cuda"]
    num_devices: PositiveInt = Field(description="GPUs; 1 for the cores of a CPU, which share their memory")
    memory_bytes: PositiveFloat = Field(description="of one device, as much as a process may take")
    flops_per_s: PositiveFloat = Field(description="nominal, of one device: dense bfloat16 on a GPU, float32 on a CPU")
    efficiency: float = Field(
        gt=0.0, le=1.0, description="share of that which is assumed to be reached (MFU); measure it, then set it"
    )

    def hours(self, flops: float) -> float:
        """Hours of wall time that so many operations take, with all devices at work."""
        return flops / (self.flops_per_s * self.efficiency * self.num_devices) / 3600


# Data sheets (dense bfloat16); memory as a process sees it. The share that is reached is an assumption until a run on such a
# GPU was measured: 40 % is what large dense models come to elsewhere.
GPUS = {
    "a100": Machine(name="a100", kind="cuda", num_devices=1, memory_bytes=79 * GIB, flops_per_s=312e12, efficiency=0.4),
    "h100": Machine(name="h100", kind="cuda", num_devices=1, memory_bytes=78 * GIB, flops_per_s=989e12, efficiency=0.4),
    "h200": Machine(name="h200", kind="cuda", num_devices=1, memory_bytes=139 * GIB, flops_per_s=989e12, efficiency=0.4),
}
# A core with 512-bit vectors: two fused units of 16 float32 at about 2.5 GHz. Small models reach a quarter of it.
CORE_FLOPS_PER_S, CORE_EFFICIENCY = 160e9, 0.25
# Matrices that a peak is measured with, and for how long each. Small ones are done before another process gets the core; large
# ones keep many cores busy.
MEASURED_WIDTHS = {"cpu": (384, 1024), "cuda": (8192,)}
MEASURED_S = 0.25
# Names of boards and slices that go by a known GPU's name and are slower.
SLOWER = ("mig", "nvl", "h100 pcie")


@dataclass(frozen=True)
class Peak:
    """The most operations a second that one device is good for: what MFU is a share of."""

    device: str
    flops_per_s: float
    is_measured: bool  # in square matrix products on the device itself; else as its data sheet has it, dense bfloat16

    def line(self) -> str:
        """For people."""
        how = "measured" if self.is_measured else "by data sheet"
        return f"MFU is by a peak of {self.flops_per_s / 1e12:.3g} TFLOP/s, {how} ({self.device})"


def device_peak(device: torch.device) -> Peak:
    """Of a known GPU by its name; of any other device as measured in half a second, on a CPU in float32 and torch's threads."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if (known := known_gpu(name)) is not None and not any(other in name.lower() for other in SLOWER):
            return Peak(name, GPUS[known].flops_per_s, is_measured=False)
        return Peak(name, _measured(device, torch.bfloat16), is_measured=True)
    return Peak(f"CPU, {counted(torch.get_num_threads(), 'thread')}, float32", _measured(device, torch.float32), is_measured=True)


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest of many products: others on the machine make one slower, nothing makes it faster."""
    import torch

    highest, draw = 0.0, torch.Generator(device).manual_seed(0)
    for width in MEASURED_WIDTHS[device.type]:
        # Drawn numbers: a GPU multiplies equal ones with less power, an eighth faster than it ever trains.
        left = torch.randn(width, width, generator=draw, device=device).to(dtype)
        product = torch.empty_like(left)
        begun = time.perf_counter()
        while time.perf_counter() - begun < MEASURED_S:
            began = time.perf_counter()
            torch.matmul(left, left, out=product)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            highest = max(highest, 2 * width**3 / (time.perf_counter() - began))
    return highest


def find_machine(name: str) -> Machine:
    """The machine of that name, or of a YAML file. Raises RequestError with the names."""
    if name.endswith((".yaml", ".yml")):
        try:
            with open(name, encoding="utf-8") as file:
                return decode_recipe(Machine, file.read(), name)
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"machine file {name!r} cannot be read ({error}); give one or a name like h100x8") from error
    parts = NAME.match(name)
    kind, number = (parts["cpu"] or parts["gpu"], int(parts["number"])) if parts else ("", 0)
    if kind == "cpu":
        return Machine(
            name=name,
            kind="cpu",
            num_devices=1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            flops_per_s=number * CORE_FLOPS_PER_S,
            efficiency=CORE_EFFICIENCY,
        )
    if kind in GPUS:
        return GPUS[kind].model_copy(update={"name": name, "num_devices": number})
    raise RequestError(
        f"machine {name!r} is unknown; names are {', '.join(f'{gpu}xN' for gpu in GPUS)} and cpuN, and a file of one ends in .yaml"
    )


def this_machine(threads: int) -> Machine:
    """Where this process runs: its GPUs, or as many cores as there are threads. Raises RequestError for an unknown GPU."""
    import torch

    if not torch.cuda.is_available():
        return find_machine(f"cpu{threads}")
    name = torch.cuda.get_device_name()
    known = known_gpu(name)
    if known is None:
        raise RequestError(
            f"GPU {name!r} is unknown to the planner; describe the machine in a YAML file and give it as --machine"
        )
    return find_machine(f"{known}x{torch.cuda.device_count()}")


def known_gpu(name: str) -> str | None:
    """The key in ``GPUS`` of a CUDA device's name."""
    return next((gpu for gpu in GPUS if gpu in name.lower()), None)
