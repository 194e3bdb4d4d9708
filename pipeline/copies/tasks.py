"""Tasks of a job through Dask: threads of this process, or a ``distributed`` cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from manifests.console import ProgressBar
from manifests.fold import connected, num_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Item], Result], items: Sequence[Item], bar: ProgressBar, scheduler: str | None = None
) -> list[Result]:
    """What ``function`` returns of each item, in order. NumPy's kernels let go of the interpreter, so threads do run at once.

    Raises RequestError where nothing answers at the address of the ``scheduler``.
    """
    if scheduler is not None:
        return _on_cluster(function, items, bar, scheduler)
    from dask.callbacks import Callback
    from dask.threaded import get

    def advance(*_: Any) -> None:
        bar.advance()

    names = [f"task-{number:09d}" for number in range(len(items))]
    graph = {name: (function, item) for name, item in zip(names, items, strict=True)}
    with ThreadPoolExecutor(num_threads()) as pool, Callback(posttask=advance):
        return list(get(graph, names, pool=pool, num_workers=num_threads()))


def _on_cluster(function: Callable[[Item], Result], items: Sequence[Item], bar: ProgressBar, address: str) -> list[Result]:
    from distributed import as_completed

    with connected(address) as client:
        futures = client.map(function, items, pure=False)
        for _ in as_completed(futures, loop=client.loop):
            bar.advance()
        return list(client.gather(futures))
