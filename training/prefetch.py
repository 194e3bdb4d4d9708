"""The next steps of a stage, worked out by a thread while the present one trains.

Reading, decoding and mels run outside the interpreter's lock for the most part: where a core is free, they take that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from training.batches import Batch, CtcBatch
from training.data import StageData

AHEAD = 2  # steps in memory besides the one that trains: one that is ready, one under work

Batches = Sequence[Batch] | Sequence[CtcBatch]


class Prefetcher:
    """The next ``num_steps`` steps of a stage's data, in their order; used with ``with``, behind which no thread is left.

    The thread is the only one that touches ``data`` in there. Its torch has as many threads as the caller's, so that every
    bit is what the caller would have got.
    """

    def __init__(self, data: StageData, num_steps: int, ahead: int = AHEAD) -> None:
        """At most ``ahead`` steps, 1 or more, are worked out before they are asked for."""
        self._data, self._left, self._ahead = data, num_steps, ahead
        self._state = data.state_dict()
        self._steps: deque[Future[tuple[Batches, dict[str, Any]]]] = deque()

    def __enter__(self) -> Prefetcher:
        # One thread, or steps would change places. It is new, and torch sets a new thread to the number last set anywhere; setting
        # another one in it would change MKL's in all of them.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        for _ in range(self._ahead):
            self._begin_another()
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the step under work; none is begun behind it."""
        self._pool.shutdown(cancel_futures=True)

    def next_step(self) -> Batches:
        """As of the data. What was raised while the step was worked out is raised here."""
        batches, self._state = self._steps.popleft().result()
        self._begin_another()
        return batches

    def work_out_again(self, num_more: int = 0) -> None:
        """What lies ahead, from behind the last step that was taken: the data is to leave out more. ``num_more`` steps follow the last one."""
        for step in self._steps:
            step.cancel()
        wait([step for step in self._steps if not step.cancelled()])
        self._left += len(self._steps) + num_more
        self._steps.clear()
        self._data.load_state_dict(self._state)
        for _ in range(self._ahead):
            self._begin_another()

    def state_dict(self) -> dict[str, Any]:
        """The data's behind the last step that was taken, however far the thread has come."""
        return self._state

    def _begin_another(self) -> None:
        if self._left > 0:
            self._left -= 1
            self._steps.append(self._pool.submit(self._work_out))

    def _work_out(self) -> tuple[Batches, dict[str, Any]]:
        return self._data.next_step(), self._data.state_dict()
