"""What a training process sets up for itself."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from training.device import exact_arithmetic

# Page faults of ten rounds in which three blocks of 20 MB are written and freed, behind a first one.
FAULTS = """
import resource
import numpy as np
from training.device import keep_freed_memory

{setup}

def work():
    blocks = [np.ones(20_000_000 // 8) for _ in range(3)]

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(setup: str) -> int:
    return int(
        subprocess.run([sys.executable, "-c", FAULTS.format(setup=setup)], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's malloc is left as it is")
def test_a_process_that_keeps_freed_memory_does_not_fetch_it_again() -> None:
    assert faults("keep_freed_memory()") * 10 < faults("")


def test_what_was_set_comes_back_behind_exact_arithmetic() -> None:
    def settings() -> list[object]:
        memory: Any = torch.utils.deterministic
        return [torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory]

    before = settings()
    with exact_arithmetic(3):
        assert settings() == [3, True, False]
    assert settings() == before
