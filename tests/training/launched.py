"""Processes that train together, started as torchrun starts them but without its own process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence


class Launched:
    """``world`` processes of one program."""

    def __init__(self, program: Sequence[str], world: int) -> None:
        """``program``: what stands behind ``python``."""
        port = free_port()
        self.processes = [
            subprocess.Popen(
                [sys.executable, *program],
                env=environment(rank, world, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]

    def ended(self, limit_s: float) -> list[tuple[int, str]]:
        """Exit code and standard error of each; one that is not done in time fails the test, and all are killed."""
        return [(process.returncode, err) for process, (_, err) in zip(self.processes, self._communicate(limit_s), strict=True)]

    def outputs(self, limit_s: float) -> list[str]:
        """What each prints, as ``ended``; one that fails, fails the test."""
        printed = []
        for rank, (out, err) in enumerate(self._communicate(limit_s)):
            code = self.processes[rank].returncode
            assert code == 0, f"rank {rank} ended with {code}: {err[-3000:]}"
            printed.append(out)
        return printed

    def _communicate(self, limit_s: float) -> list[tuple[str, str]]:
        until = time.monotonic() + limit_s
        try:
            return [process.communicate(timeout=max(0.1, until - time.monotonic())) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """As torchrun sets it."""
    named = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in named.items()}}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
