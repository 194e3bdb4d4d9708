"""Whether a channel may hold more than one voice: a gate in front of diarization, not a diarization.

Loud windows of 1.6 s, one each 0.8 s, are embedded by the speaker encoder; two of them further apart than a threshold are
taken for two voices. The first such pair ends the search. A false alarm costs a diarization, a miss the second speaker's
label, so the threshold is low (docs/quality.md has the measurement).

Shape legend: S samples, F mel frames, M mel bands, W windows, D embedding width.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from annotators.speaker_encoder import HOP_SAMPLES, PARTIAL_FRAMES, PARTIAL_HOP_FRAMES, WIDTH, encoder_model, encoder_path
from annotators.weights import path_digest
from manifests.contracts import AudioSlices, ChannelAudio, HeardSpan, ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.lineage import fingerprint
from manifests.spans import Span

WINDOW_SAMPLES = PARTIAL_FRAMES * HOP_SAMPLES
WINDOWS_A_BLOCK = 75
BLOCK_SAMPLES = WINDOWS_A_BLOCK * PARTIAL_HOP_FRAMES * HOP_SAMPLES  # 60 s
LOUD_PERCENTILE, LOUD_SHARE_OF_POWER = 95, 1e-3  # a loud frame is at most 30 dB below the loud ones
LOUD_SHARE_OF_WINDOW = 0.4


class SpeakerChangeConfig(SegmenterConfigBase):
    """Speaker-change gate; made for ``diarization: {when: {spans: ...}}``."""

    kind: Literal["speaker_change"] = "speaker_change"
    threshold: float = Field(
        default=0.40, gt=0, lt=2, description="cosine distance of two windows above which they may be two voices"
    )

    def build(self) -> SpeakerChange:
        return SpeakerChange(self)


class SpeakerChange:
    """Segmenter: at most one span, from the start of a window to the end of a later one that sounds like another voice.

    Under two windows (in 1.6 s or less) nothing is told apart. It does not know speech from other sound: gate it by a VAD.
    """

    name = "speaker_change"
    version = "2"
    # In the pool of the diarization that it gates: both hold torch and the encoder.
    resources = Resources(pool="diarization", num_cpus=1.0, memory_bytes=1 << 30, batch_audio_s=3600.0)

    def __init__(self, config: SpeakerChangeConfig) -> None:
        self.config = config
        self._encoder: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (encoder_model(),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity(), path_digest(encoder_path()))

    def setup(self) -> None:
        if self._encoder is None:
            encoder_path()  # a missing wheel is told before the slow import
            import torch

            from annotators.speaker_encoder import SpeakerEncoder

            torch.set_num_threads(1)
            self._encoder = SpeakerEncoder()

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        self.setup()
        audio_S = channel.audio
        starts_W, voices_WD = np.zeros(0, np.int64), np.zeros((0, WIDTH), np.float32)
        loudest = 0.0
        for first in range(0, len(audio_S), BLOCK_SAMPLES):
            mel_FM = self._encoder.features(_block(audio_S, first))
            power_F = mel_FM.sum(axis=1)
            loudest = max(loudest, float(np.percentile(power_F, LOUD_PERCENTILE)))
            is_last = first + BLOCK_SAMPLES >= len(audio_S)
            frames = [f for f in _window_frames(len(mel_FM), is_last) if _is_loud(power_F[f : f + PARTIAL_FRAMES], loudest)]
            new_WD = self._encoder.embed([mel_FM[f : f + PARTIAL_FRAMES] for f in frames])
            starts_W = np.concatenate([starts_W, first + np.array(frames, np.int64) * HOP_SAMPLES])
            voices_WD = np.concatenate([voices_WD, new_WD])
            # Every new window against all so far; an embedding of NaN is far from nothing.
            apart = np.argwhere(1.0 - new_WD @ voices_WD.T > self.config.threshold)
            if len(apart):
                new, other = apart[0]
                start, end = sorted((starts_W[len(starts_W) - len(frames) + new], starts_W[other]))
                return [HeardSpan(Span(int(start), min(len(audio_S), int(end) + WINDOW_SAMPLES)))]
        return []


def _block(audio_S: AudioSlices, first: int) -> np.ndarray:
    """The block's audio with what its last window needs of the next one."""
    return audio_S[first : first + BLOCK_SAMPLES + WINDOW_SAMPLES - PARTIAL_HOP_FRAMES * HOP_SAMPLES]


def _window_frames(num_frames: int, is_last: bool) -> list[int]:
    """First frames of a block's windows: on a grid, and in the last block one that ends with the audio."""
    last = num_frames - PARTIAL_FRAMES
    frames = list(range(0, last + 1, PARTIAL_HOP_FRAMES))[:WINDOWS_A_BLOCK]
    return [*frames, last] if is_last and frames and frames[-1] != last else frames


def _is_loud(power_F: np.ndarray, loudest: float) -> bool:
    """Whether enough of a window is near the level of the loud frames heard so far."""
    return float((power_F > LOUD_SHARE_OF_POWER * loudest).mean()) >= LOUD_SHARE_OF_WINDOW
