"""The processes that train together, and what they tell each other.

A launcher starts them: ``torchrun`` and Ray Train say by environment variables who is who; without any there is one process, no process group,
and every verb here is free.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from manifests.errors import RequestError, WorkError

Value = TypeVar("Value")
# What a launcher sets for each process; the first two are torchrun's names for "which" and "of how many".
RANK, WORLD, LOCAL_RANK, ADDRESS, PORT = "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"

LOST = "has lost another"  # said by a rank whose error is none of its own


@dataclass(frozen=True)
class Ranks:
    """This process among those that train: its number from 0, how many they are, and where its part of the model lies."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: dist.ProcessGroup | None = None  # they speak in; None: the default one

    @property
    def is_first(self) -> bool:
        """Of all ranks, the one that prints and writes files."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, changed in place to its sum over all ranks: the same bits on each. Every rank must call it."""
        if self.world > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=self.group)
        return tensor

    def gather(self, value: Value) -> list[Value]:
        """The picklable values of all ranks, in their order, on every rank. Every rank must call it."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.group)
        return found

    def agree(self, work: Callable[[], Value]) -> list[Value]:
        """What ``work`` comes to on each rank, in their order, on every rank. Every rank must call it.

        Raises on all of them what it raised on the first that it failed on, so that none waits for one that is gone.
        """
        try:
            own: tuple[Any, Exception | None] = (work(), None)
        except Exception as error:
            own = (None, error)
        found = self.gather(own)
        for _, failure in found:
            if failure is not None:
                raise failure
        return [value for value, _ in found]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier(group=self.group)

    @contextmanager
    def apart(self) -> Iterator[Ranks]:
        """The same ranks in a group of their own, for a thread beside the one that trains. Every rank must call it."""
        if self.world == 1:
            yield self
            return
        with quiet_gloo():
            group = dist.new_group(backend="gloo")
        yield replace(self, device=torch.device("cpu"), group=group)
        dist.destroy_process_group(group)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that a launcher started, connected while the body runs; this process alone where none did.

    They speak gloo, and NCCL for what lies on a CUDA device. A process group that the launcher made already (Ray Train) is used and left.
    Only the first prints, but for an error: of whatever ends the ranks, the one that met it first says it, and the others end without
    a word. Raises RequestError where the launcher's variables do not fit together, WorkError where another rank is gone.
    """
    found = _ranks()
    if found.device.type == "cuda":
        torch.cuda.set_device(found.device)
    with nullcontext() if found.is_first else _silence():
        if found.world == 1:
            yield found
        elif dist.is_initialized():
            with _plain_losses(found):
                yield found
        else:
            with _one_voice(found), _plain_losses(found):
                yield found


@contextmanager
def _one_voice(ranks: Ranks) -> Iterator[None]:
    """Connect the ranks while the body runs. What it raises leaves it on the rank that raises first; on the others, an exit does."""
    store, _, _ = next(rendezvous("env://"))
    with quiet_gloo():
        backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world)
    try:
        yield
    except BaseException as error:
        # The group is left as it is: taking it down would wait for ranks that are gone.
        try:
            has_another_spoken = store.add("ended", 1) > 1
        except RuntimeError:  # the store went with the rank that kept it, which said nothing of this error
            has_another_spoken = False
        if has_another_spoken:
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    dist.destroy_process_group()


@contextmanager
def _plain_losses(ranks: Ranks) -> Iterator[None]:
    """A broken connection is one line."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise WorkError(
            f"rank {ranks.rank} of {ranks.world} {LOST}: it was killed, ran out of memory, or its machine is gone; see what was said of "
            "it, and go on with --resume"
        ) from error


def is_loss(error: BaseException) -> bool:
    """Whether it says that another rank is gone. Gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is printed while the body runs; what leaves it is said as ever."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def quiet_gloo() -> Iterator[None]:
    """While a process group is made: gloo writes a line about each to standard output, where results belong."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _ranks() -> Ranks:
    if WORLD not in os.environ:
        return Ranks(0, 1, local_device())
    needed = (RANK, LOCAL_RANK, ADDRESS, PORT)
    if missing := [name for name in needed if name not in os.environ]:
        raise RequestError(
            f"{WORLD} is set and {', '.join(missing)} not; torchrun sets all of them: launch with it, or unset {WORLD}"
        )
    values = {name: os.environ[name] for name in (RANK, WORLD, LOCAL_RANK)}
    if not all(value.isdecimal() for value in values.values()) or not int(values[RANK]) < int(values[WORLD]):
        raise RequestError(f"{values}: must be whole numbers, {RANK} below {WORLD}; launch with torchrun, or unset them")
    return Ranks(int(values[RANK]), int(values[WORLD]), local_device(int(values[LOCAL_RANK])))


def local_device(local_rank: int = 0) -> torch.device:
    """CUDA where there is one, else the CPU. Raises RequestError for a process beyond the machine's devices."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RequestError(
            f"{LOCAL_RANK} {local_rank} has no device among the {torch.cuda.device_count()} of this machine; start at most one process a device"
        )
    return torch.device("cuda", local_rank)
