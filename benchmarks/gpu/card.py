"""What the card does in the simplest work: the ceilings that steps and checkpoints are to be held against."""

from __future__ import annotations

import platform
from typing import Any

import torch

from benchmarks.gpu.clock import usual_seconds
from training.attention import varlen_kernel

# Dense bfloat16 by data sheet, as in training/machines.py, which needs more than torch.
NOMINAL_FLOPS_PER_S = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
SLOWER = ("mig", "nvl", "h100 pcie")  # boards and slices that go by a known name and are slower
WIDTH, COPIED_BYTES = {"cuda": 8192, "cpu": 512}, {"cuda": 1 << 30, "cpu": 1 << 24}


def measure(device: str) -> dict[str, Any]:
    """Names, and operations and bytes a second."""
    width, num_bytes = WIDTH[device], COPIED_BYTES[device]
    # Random: products of equal numbers take less power, and a card that has some left runs faster.
    left, right = (torch.randn(width, width, device=device).bfloat16() for _ in range(2))
    product_s = usual_seconds(device, lambda: left @ right, 10)
    there, other = (torch.empty(num_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    here = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=device == "cuda")
    return {
        "name": name_of(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "has_varlen": varlen_kernel() is not None,
        "nominal_flops_per_s": nominal_of(device),
        "product_flops_per_s": 2 * width**3 / product_s,
        "copy_bytes_per_s": 2 * num_bytes / usual_seconds(device, lambda: other.copy_(there), 5),
        "to_host_bytes_per_s": num_bytes / usual_seconds(device, lambda: here.copy_(there, non_blocking=True), 5),
    }


def name_of(device: str) -> str:
    """The card's name."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def nominal_of(device: str) -> float | None:
    """The GPU's operations a second by its name; None for one that is not known, and for a CPU."""
    name = name_of(device).lower()
    if any(other in name for other in SLOWER):
        return None
    return next((speed for gpu, speed in NOMINAL_FLOPS_PER_S.items() if gpu in name), None)
