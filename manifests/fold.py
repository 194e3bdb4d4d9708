"""One pass over rows of any number: Dask runs a task a slice, and merges what they found in a tree.

Each task reads the columns that the tallies need, joined by position, and lets them count; memory holds a few slices
and the tallies. Threads by default; with the address of a ``distributed`` scheduler the same graph runs there.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import pyarrow as pa

from manifests.console import ProgressBar, progress
from manifests.errors import RequestError
from manifests.rows import Rows, Slice

if TYPE_CHECKING:
    from distributed import Client

FAN_IN = 8  # partial results that are merged at a time
SLICES_A_TASK = 4
ANSWER_WITHIN_S = 10.0


class Tally(Protocol):
    """What is counted over rows. Picklable, and empty when it is handed to ``fold``."""

    @property
    def columns(self) -> Sequence[str]:
        """Full names of the columns that it needs."""

    def add(self, table: pa.Table) -> None:
        """Count the rows of a slice; the table has the columns of other tallies too."""

    def merge(self, other: Self) -> None:
        """Count what another one has counted over later rows."""


T = TypeVar("T", bound=Tally)


def fold(rows: Rows, tallies: Sequence[T], scheduler: str | None = None, title: str = "rows") -> list[T]:
    """The tallies over all rows, in the order of slices. Those given stay as they are.

    Raises RequestError where nothing answers at the address of the ``scheduler``.
    """
    from dask.delayed import delayed

    columns = list(dict.fromkeys(name for tally in tallies for name in tally.columns))
    slices = list(rows.slices)
    if not slices:
        return copy.deepcopy(list(tallies))
    count, merge = delayed(_counted, pure=False), delayed(_merged, pure=False)
    leaves = [
        count(rows, slices[at : at + SLICES_A_TASK], columns, list(tallies), dask_key_name=f"slices-{at:09d}")
        for at in range(0, len(slices), SLICES_A_TASK)
    ]
    parts = leaves
    while len(parts) > 1:
        parts = [merge(parts[at : at + FAN_IN]) for at in range(0, len(parts), FAN_IN)]
    with progress() as bars:
        bar = bars.task(title, len(leaves), "parts")
        found: list[T] = _in_threads(parts[0], bar) if scheduler is None else _on_cluster(parts[0], leaves, scheduler, bar)
    return found


def _counted(rows: Rows, slices: Sequence[Slice], columns: Sequence[str], tallies: Sequence[T]) -> list[T]:
    found = copy.deepcopy(list(tallies))
    for part in slices:
        table = rows.read(part, columns)
        for tally in found:
            tally.add(table)
    return found


def _merged(parts: Sequence[Sequence[T]]) -> list[T]:
    # A copy: a cluster that lost a worker merges the same parts again.
    found = copy.deepcopy(list(parts[0]))
    for other in parts[1:]:
        for tally, more in zip(found, other, strict=True):
            tally.merge(more)
    return found


def num_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def _in_threads(total: Any, bar: ProgressBar) -> Any:
    from dask.base import compute
    from dask.callbacks import Callback

    def advance(key: Any, *_: Any) -> None:
        if str(key).startswith("slices-"):
            bar.advance()

    with ThreadPoolExecutor(num_threads()) as pool, Callback(posttask=advance):
        # The graph is small and its order is right as it stands: leaves in order, merges as soon as they can be.
        return compute(total, scheduler="threads", pool=pool, num_workers=num_threads())[0]


def _on_cluster(total: Any, leaves: Sequence[Any], address: str, bar: ProgressBar) -> Any:
    from distributed import as_completed

    with connected(address) as client:
        futures = client.compute([*leaves, total])
        for _ in as_completed(futures[:-1], loop=client.loop):
            bar.advance()
        return futures[-1].result()


def connected(address: str) -> Client:
    """A client of the scheduler at an address. Raises RequestError where nothing answers."""
    from distributed import Client

    try:
        return Client(address, timeout=ANSWER_WITHIN_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RequestError(
            f"scheduler {address!r} does not answer ({error}); start one with `dask scheduler`, or leave out --scheduler"
        ) from error
