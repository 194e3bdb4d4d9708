"""What a training process sets up for itself."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
