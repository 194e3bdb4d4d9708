"""What decides the bits of a run, and what makes its sums come out the same."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from manifests.errors import MismatchError

if TYPE_CHECKING:
    from training.recipe import TrainingRecipe

# What cuBLAS asks for before its sums come out the same (CUDA toolkit, "Results reproducibility").
CUBLAS_WORKSPACE = ":4096:8"

# Of glibc's malloc (mallopt(3)): how much free memory it keeps, and from which size on a block is the system's own.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGE_BLOCK_BYTES = 1 << 30, 32 << 20


@dataclass(frozen=True)
class Arithmetic:
    """What decides the bits of a run besides what it learns from: equal ones go on exactly, others only nearly."""

    torch_version: str
    device: str  # name of the CUDA device, or the instructions that torch takes of a CPU
    dtype: str  # that matrices are multiplied in
    threads: int
    recompute: bool
    compile: bool
    world: int  # ranks that train together: their sums are added in another order

    @staticmethod
    def of(recipe: TrainingRecipe, device: torch.device, world: int) -> Arithmetic:
        """Of a run of the recipe in this process and those beside it."""
        on_cuda = device.type == "cuda"
        return Arithmetic(
            torch_version=torch.__version__,
            device=torch.cuda.get_device_name(device) if on_cuda else f"CPU {torch.backends.cpu.get_cpu_capability()}",
            dtype=recipe.precision.value,
            threads=recipe.threads,
            recompute=recipe.recompute,
            compile=recipe.compile,
            world=world,
        )

    def check(self, other: Arithmetic, what: str, allow_inexact: bool) -> dict[str, list[Any]]:
        """What differs from another: its value there and here. Raises MismatchError naming it, unless ``allow_inexact``."""
        pairs = {entry.name: [getattr(other, entry.name), getattr(self, entry.name)] for entry in fields(self)}
        differing = {name: [there, here] for name, (there, here) in pairs.items() if here != there}
        if differing and not allow_inexact:
            raise MismatchError(
                f"{what} was computed with {told(differing)}: what follows would differ in last bits from a run that was never stopped; "
                "go on as it began, or add --allow-inexact"
            )
        return differing


def told(differing: Mapping[str, Sequence[Any]]) -> str:
    """For people, what ``Arithmetic.check`` found."""
    return ", ".join(f"{name} {there} (here {here})" for name, (there, here) in differing.items())


@contextmanager
def exact_arithmetic(threads: int) -> Iterator[None]:
    """A fixed number of threads and deterministic kernels; what was set before comes back afterwards.

    On the CPU equal steps give equal bits, so a resumed run is the unbroken one exactly. On CUDA that holds only where
    every kernel has a deterministic form: CTC's backward has none, and fused attention takes its own only without ``warn_only``, under which
    torch warns of the first instead of refusing it. There a stage may differ in last bits.
    """
    before_threads, before_exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    before_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its property is known to no type checker
    before_filling = memory.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # Every copy would first be filled with NaN, and on a GPU be written twice; nothing here reads what nothing wrote.
    memory.fill_uninitialized_memory = False
    if torch.cuda.is_available():
        # Read once, when cuBLAS starts; it stays set, since taking it back afterwards would change nothing.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before_threads)
        torch.use_deterministic_algorithms(before_exact, warn_only=before_warning)
        memory.fill_uninitialized_memory = before_filling


def keep_freed_memory() -> None:
    """Let a process that trains on the CPU keep what a step frees for the next one, up to KEPT_BYTES, where its C library is glibc.

    Otherwise most pages go back to the system and are fetched, zeroed, anew: some 10,000 a step of ``small``, 5 % of its CPU time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        libc.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
