"""Parts for tests of who speaks: a tone is a voice, and how far two tones lie apart is how unlike the voices are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.contracts import ChannelAudio, ClipBatch, HeardSpan, Hearing, Resources
from manifests.spans import Span

RATE_HZ = 16_000


def tone(angle: float, seconds: float = 1.0) -> np.ndarray:
    """Float32 ``[S]``: the voice that lies at this angle (radians); two of them have the cosine of the difference."""
    return 0.3 * np.sin(2 * np.pi * (1000 + 1000 * angle) * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)


class WholeChannel:
    """Segmenter: all is speech."""

    name, version = "whole", "1"
    resources, models = Resources(), ()

    def fingerprint(self) -> str:
        return self.name

    def setup(self) -> None:
        pass

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        return [HeardSpan(Span(0, len(channel.audio)))]


class Halves(WholeChannel):
    """Diarization: a speaker a half."""

    name = "halves"

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        middle, end = len(channel.audio) // 2, len(channel.audio)
        return [HeardSpan(Span(0, middle), "S0"), HeardSpan(Span(middle, end), "S1")]


class ToneVoice:
    """Annotator: the angle of the loudest frequency as a unit vector; abstains below -30 dBFS."""

    name, version, reads, hears = "tone_voice", "1", (), Hearing.MODEL
    adds = pa.schema([pa.field("embedding", pa.list_(pa.float32())), pa.field("embedded_s", pa.float32())])
    batch_tolerance, models, resources = 0.0, (), Resources()

    def fingerprint(self) -> str:
        return self.name

    def setup(self) -> None:
        pass

    def annotate(self, batch: ClipBatch) -> pa.Table:
        return batch.table([self._row(audio) for audio in batch.audio], self.adds)

    def _row(self, audio_S: np.ndarray) -> dict[str, object] | None:
        if np.sqrt(np.mean(audio_S**2)) < 0.03:
            return None
        peak_hz = np.argmax(np.abs(np.fft.rfft(audio_S))) * RATE_HZ / len(audio_S)
        angle = peak_hz / 1000 - 1
        return {"embedding": [np.cos(angle), np.sin(angle), 0.0], "embedded_s": len(audio_S) / RATE_HZ}
