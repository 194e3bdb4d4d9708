"""Where the model runs, and what makes its sums come out the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What cuBLAS asks for before its sums come out the same (CUDA toolkit, "Results reproducibility").
CUBLAS_WORKSPACE = ":4096:8"


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exact_arithmetic(threads: int) -> Iterator[None]:
    """A fixed number of threads and deterministic kernels; what was set before comes back afterwards.

    On the CPU equal steps give equal bits, so a resumed run is the unbroken one exactly. On CUDA that holds only where
    every kernel has a deterministic form. CTC's backward has none: torch warns, and such a stage may differ in last bits.
    """
    before_threads, before_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    before_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # Read once, when cuBLAS starts; it stays set, since taking it back afterwards would change nothing.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before_threads)
        torch.use_deterministic_algorithms(before_exact, warn_only=before_warning)
