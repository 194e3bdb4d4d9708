"""CPU time of this process and of the helper processes that work for it.

A helper is no child that the kernel has counted before it ended, so what it has taken is charged here as it answers.
"""

from __future__ import annotations

import resource
import time

_charged_s = 0.0


def cpu_s() -> float:
    """CPU seconds so far: all threads of this process, and what was charged. Differences alone mean something."""
    return time.process_time() + _charged_s


def charge(seconds: float) -> None:
    """Add CPU seconds that a helper has taken for this process."""
    global _charged_s
    _charged_s += seconds


def spent_s() -> float:
    """CPU seconds so far of this process and of its children that have ended and were waited for, as the kernel counts them."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
