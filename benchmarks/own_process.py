"""A call in a process of its own, and what that process and all below it cost. Linux only: it reads ``/proc``."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

SAMPLE_EVERY_S = 0.5  # CPU time of a process between the last look and its end is not seen
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class ProcessCost:
    """CPU seconds (all threads, user and system) and largest resident memory of one process so far."""

    command: str
    cpu_s: float
    peak_rss_bytes: int


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, list[ProcessCost]]:
    """What the function returns in a fresh process, and the costs of that process and those that it starts."""
    seen: dict[int, ProcessCost] = {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(function, *args, **kwargs)
        while not future.done():
            seen |= processes_below(os.getpid())
            wait([future], timeout=SAMPLE_EVERY_S)
        seen |= processes_below(os.getpid())
        return future.result(), list(seen.values())


def processes_below(root: int) -> dict[int, ProcessCost]:
    """pid -> costs of every living process below ``root``."""
    parents: dict[int, int] = {}
    costs: dict[int, ProcessCost] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            peak = next((line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM")), None)
        except OSError:  # it has ended
            continue
        fields = rest.split()
        if peak is not None:  # threads of the kernel have no memory of their own
            parents[int(folder.name)] = int(fields[1])
            cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND
            costs[int(folder.name)] = ProcessCost(command, cpu_s, int(peak.split()[1]) * 1024)
    below = {root}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: costs[pid] for pid in below - {root}}


class Timer:
    """CPU seconds of this process (all its threads) and wall seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    def call(self, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result; its time is added to ``name``."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        row = self.seconds.setdefault(name, {"cpu_s": 0.0, "wall_s": 0.0})
        row["cpu_s"] += time.process_time() - cpu
        row["wall_s"] += time.perf_counter() - wall
        return result
