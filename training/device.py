"""Where the model runs, and what makes its sums come out the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exact_arithmetic(threads: int) -> Iterator[None]:
    """A fixed number of threads and deterministic kernels; what was set before comes back afterwards."""
    before_threads, before_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    before_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    # CTC has no deterministic backward on CUDA: there it warns; on the CPU everything used here is exact.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before_threads)
        torch.use_deterministic_algorithms(before_exact, warn_only=before_warning)
