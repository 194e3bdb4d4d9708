"""Time on a device, which works behind the back of the process that asks for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def settle(device: str) -> None:
    """Until the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(device: str, work: Callable[[], object]) -> float:
    """That some work takes, to the end of what it began on the device."""
    settle(device)
    began = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - began


def usual_seconds(device: str, work: Callable[[], object], times: int, warm_up: int = 2) -> float:
    """The median, behind rounds that do not count."""
    return statistics.median([seconds(device, work) for _ in range(warm_up + times)][warm_up:])


class Phases:
    """Seconds by phase of work that is done piece by piece."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        settle(self._device)
        began = time.perf_counter()
        yield
        settle(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
