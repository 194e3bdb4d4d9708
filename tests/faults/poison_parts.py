"""Parts that a test's recipe names as ``kind: custom``: each does to its process what bad audio does to a real model."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.contracts import ChannelAudio, ClipBatch, HeardSpan, Hearing, ModelFact, Resources
from manifests.spans import Span


def _suffer(how: str) -> None:
    """What a broken decoder does."""
    if how == "crash":
        ctypes.string_at(0)  # a read at address 0: SIGSEGV
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hang":
        # Sleeps inside C without giving up the GIL, as a decoder that loops does: no Python thread runs any more.
        ctypes.PyDLL(None).sleep(3600)
    elif how == "eat":
        held = []
        while True:
            held.append(np.ones(16 << 20))  # 128 MB each, written to
    elif how == "reset":
        _reset_three_times(os.environ["RESETS"])
    elif how == "raise":
        raise ValueError("no such sound")
    else:
        time.sleep(float(how))


def _reset_three_times(counter: str) -> None:
    """A store that breaks the connection; ``counter`` is a file with a mark for each time."""
    with open(counter, "r+") as file:
        if len(file.read()) < 3:
            file.write("x")
            raise ConnectionResetError("reset by peer")


class PoisonedAnnotator:
    """Counts samples. Does ``how`` on clips that hold a whole second of full-scale square wave; once only with ``flag``.

    ``spares=False``: on every clip.
    """

    name, version, reads, hears = "poisoned", "1", (), Hearing.MODEL
    adds = pa.schema([pa.field("num_heard", pa.int64())])
    batch_tolerance, models = 0.0, ()

    def __init__(
        self, how: str, flag: str | None = None, batch_audio_s: float = 300.0, pool: str = "poisoned", spares: bool = True
    ) -> None:
        self.how, self.flag, self.spares = how, flag, spares
        self.resources = Resources(pool=pool, batch_audio_s=batch_audio_s)

    def fingerprint(self) -> str:
        return f"{self.name}-{self.how}"

    def setup(self) -> None:
        pass

    def annotate(self, batch: ClipBatch) -> pa.Table:
        for audio in batch.audio:
            if (is_poison(audio) or not self.spares) and not (self.flag and os.path.exists(self.flag)):
                if self.flag:
                    open(self.flag, "w").close()
                _suffer(self.how)
        return batch.table([{"num_heard": len(audio)} for audio in batch.audio], self.adds)


class DeadlyModel(PoisonedAnnotator):
    """Takes its process down while it loads weights that came with no package."""

    models = (ModelFact("./deadly", None, "d" * 32, None),)

    def setup(self) -> None:
        _suffer(self.how)


class PoisonedSegmenter:
    """One span over the whole channel; does ``how`` on poison."""

    name, version = "poisoned", "1"
    resources, models = Resources(pool="poisoned"), ()

    def __init__(self, how: str) -> None:
        self.how = how

    def fingerprint(self) -> str:
        return f"{self.name}-{self.how}"

    def setup(self) -> None:
        pass

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        audio: Any = channel.audio[:]
        if is_poison(audio):
            _suffer(self.how)
        return [HeardSpan(Span(0, len(audio)), speech_prob=1.0)] if len(audio) else []


class PoisonedManySegmenter(PoisonedSegmenter):
    """The same, many channels at once."""

    def segment_many(self, channels: Sequence[ChannelAudio]) -> list[list[HeardSpan]]:
        return [self.segment(channel) for channel in channels]


def is_poison(audio: np.ndarray) -> bool:
    """Whether a second of it sits at full scale."""
    return int((np.abs(audio) > 0.95).sum()) > 16_000


class EnvironmentAnnotator:
    """What a process of its pool sees."""

    name, version, reads, hears = "environment", "1", (), Hearing.NOTHING
    adds = pa.schema([pa.field("pinned", pa.string()), pa.field("pid", pa.int64())])
    batch_tolerance, models = 0.0, ()

    def __init__(self, pool: str) -> None:
        self.resources = Resources(pool=pool)

    def fingerprint(self) -> str:
        return self.name

    def setup(self) -> None:
        pass

    def annotate(self, batch: ClipBatch) -> pa.Table:
        row = {"pinned": os.environ.get("PINNED_VERSION"), "pid": os.getpid()}
        return batch.table([row] * len(batch), self.adds)
