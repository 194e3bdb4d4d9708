"""What a work is told while it runs on a unit, and what it tells: costs, the inputs in flight, those to leave out.

An *item* is what a work cannot divide further: an input of ingest, a channel of a segmenter, a clip of an annotator, by its
position in the unit. Poison is an item that takes its process down; whoever keeps the process learns from the
announcements which items were in flight.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from manifests.audio import HeardAudio
from manifests.cpu_clock import cpu_s
from pipeline.limits import LimitsConfig, limited_memory

# The items [start, stop) are in flight, for at most so many seconds (None: no limit); (0, 0, None): none is.
Announce = Callable[[int, int, float | None], None]


class Watch:
    """One unit of work. ``poison`` maps items to a reason code; ``only`` are the items of a probe, which is not committed."""

    def __init__(
        self,
        *,
        poison: Mapping[int, str] | None = None,
        only: range | None = None,
        announce: Announce | None = None,
        limits: LimitsConfig | None = None,
    ) -> None:
        self.audio_s = 0.0
        self.gated_audio_s = 0.0
        self.carried_audio_s = 0.0
        self.model_cpu_s = 0.0
        self.setup_s = 0.0
        self.num_rows = 0
        self.num_errors = 0
        self.first_error: str | None = None
        self.checkpoints: list[str] = []  # to be removed after the commit
        self.poison = dict(poison or {})
        self.only = only
        self._announce, self._limits = announce, limits

    def takes(self, item: int) -> bool:
        """Whether the item is to be worked on: it is no poison, and part of the probe if this is one."""
        return item not in self.poison and (self.only is None or item in self.only)

    def load(self, setup: Callable[[], None]) -> None:
        """Load the model before the first item that wants it: what a gate leaves out loads nothing."""
        began = time.perf_counter()
        setup()
        self.setup_s += time.perf_counter() - began

    @contextmanager
    def items(self, start: int, stop: int, audio_s: float) -> Iterator[None]:
        """The items ``[start, stop)`` are worked on inside, within the limits on memory and, for so much audio, on time.

        Past its time the process ends itself. The timer is C code that needs no interpreter: a decoder that hangs while it
        holds the GIL is ended too.
        """
        limits = self._limits
        timeout_s = limits.timeout_s + limits.timeout_x * audio_s if limits else None
        if self._announce:
            self._announce(start, stop, timeout_s)
        if timeout_s:
            faulthandler.dump_traceback_later(timeout_s, exit=True)
        try:
            with limited_memory(limits.memory_bytes if limits else None):
                yield
        finally:
            if timeout_s:
                faulthandler.cancel_dump_traceback_later()
            if self._announce:
                self._announce(0, 0, None)

    @contextmanager
    def model(self, heard: Sequence[HeardAudio] = ()) -> Iterator[None]:
        """Counts the CPU seconds inside as the model's own, but for those that went into reading what it has ``heard``."""
        began = cpu_s()
        try:
            yield
        finally:
            self.model_cpu_s += cpu_s() - began - sum(audio.read_cpu_s for audio in heard)

    def failed(self, num: int, message: str | None) -> None:
        """``num`` rows are errors; the first message of the unit is kept."""
        self.num_errors += num
        self.first_error = self.first_error or message
