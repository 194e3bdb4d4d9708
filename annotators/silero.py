"""Voice activity by silero-vad: one speech probability every 32 ms, made into spans by hysteresis, their edges by the level.

The network is opened from the wheel's *sequence* graph, which takes many frames in one call and gives the same
probabilities as the streaming one; neither torch nor the silero_vad package is imported. With one axis freed it takes
many streams in one call as well, to the bit as if each were heard alone (docs/decisions/0009).

Shape legend: S samples, B streams, F frames of 512 samples, C context samples, L levels of 128 samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from annotators.onnx_session import open_session, stacked_graph
from annotators.speech_edges import refine_edges
from annotators.weights import packaged_model, packaged_path, path_digest
from manifests.contracts import MODEL_RATE_HZ, AudioSlices, ChannelAudio, HeardSpan, ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.lineage import fingerprint
from manifests.spans import Span

WEIGHTS = ("data", "silero_vad_16k_sequence.onnx")
FRAME_SAMPLES = 512
CONTEXT_SAMPLES = 64  # tail of the frame before, which the network wants in front of each frame
STATE_SIZE = 128
LEVEL_SAMPLES = 128  # 8 ms, a quarter of a frame
FRAMES_A_CALL = 1024  # of all streams together: 33 s of audio and 2.4 MB of input at once, whatever their lengths
LEAST_FRAMES = 8  # of a stream in a call, where one ends: silence is heard after its end
STREAMS_A_CALL = 16  # each may hold a decoded minute of its recording, 4 MB


class SileroConfig(SegmenterConfigBase):
    """Silero VAD. The defaults are the package's own (its function ``get_speech_timestamps``) but for ``refine_ms``."""

    kind: Literal["silero"] = "silero"
    onset: float = Field(default=0.5, gt=0, lt=1, description="probability at which speech begins")
    offset: float = Field(default=0.35, gt=0, lt=1, description="probability below which speech may end")
    min_speech_ms: int = Field(default=250, ge=0, description="shorter speech is left out")
    min_silence_ms: int = Field(default=100, ge=0, description="silence that ends speech")
    refine_ms: int = Field(default=128, ge=0, description="how far an edge may move to where the level rises or falls; 0: not")
    pad_ms: int = Field(default=30, ge=0, description="added on both sides of a span")

    def build(self) -> Silero:
        return Silero(self)


class Silero:
    """Segmenter: spans of speech, each with the mean speech probability of its frames (before padding)."""

    name = "silero"
    version = "2"
    resources = Resources(pool="silero", num_cpus=1.0, memory_bytes=256 << 20)

    def __init__(self, config: SileroConfig) -> None:
        self.config = config
        self._session: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (packaged_model("MIT", "silero_vad", *WEIGHTS),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity(), path_digest(_weights_path()))

    def setup(self) -> None:
        if self._session is None:
            self._session = open_session(stacked_graph(_weights_path()))

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        return self.segment_many([channel])[0]

    def segment_many(self, channels: Sequence[ChannelAudio]) -> list[list[HeardSpan]]:
        heard = self.hear_many([channel.audio for channel in channels])
        return [
            speech_spans(probs_F, powers_L, len(channel.audio), self.config)
            for channel, (probs_F, powers_L) in zip(channels, heard, strict=True)
        ]

    def hear(self, audio_S: AudioSlices) -> tuple[np.ndarray, np.ndarray]:
        """Speech probabilities float32 ``[F]``, and mean squares float32 ``[L]`` of each 128 samples.

        The last frame is padded with zeros.
        """
        return self.hear_many([audio_S])[0]

    def hear_many(self, streams: Sequence[AudioSlices]) -> list[tuple[np.ndarray, np.ndarray]]:
        """What ``hear`` returns, of each stream; those of about one length share calls."""
        self.setup()
        longest_first = sorted(range(len(streams)), key=lambda i: -len(streams[i]))
        heard: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for first in range(0, len(streams), STREAMS_A_CALL):
            together = longest_first[first : first + STREAMS_A_CALL]
            heard.update(zip(together, self._hear_together([streams[i] for i in together]), strict=True))
        return [heard[i] for i in range(len(streams))]

    def _hear_together(self, streams: Sequence[AudioSlices]) -> list[tuple[np.ndarray, np.ndarray]]:
        """``hear_many`` of streams sorted by length, the longest first: those that have ended leave the stack from behind."""
        num_frames = [-(-len(audio_S) // FRAME_SAMPLES) for audio_S in streams]
        hidden = np.zeros((1, len(streams), STATE_SIZE), np.float32)
        cell = np.zeros((1, len(streams), STATE_SIZE), np.float32)
        contexts_BC = np.zeros((len(streams), CONTEXT_SAMPLES), np.float32)
        probs = [[np.zeros(0, np.float32)] for _ in streams]
        powers = [[np.zeros(0, np.float32)] for _ in streams]
        first = 0
        while alive := sum(first < num for num in num_frames):
            # Up to where the shortest ends, but not by steps so small that each costs a call.
            count = min(FRAMES_A_CALL // alive, max(num_frames[alive - 1] - first, LEAST_FRAMES), num_frames[0] - first)
            inputs = np.empty((count, alive, CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
            for b in range(alive):
                frames = _frames(streams[b], first, count)
                inputs[:, b, CONTEXT_SAMPLES:] = frames
                powers[b].append(np.square(frames.reshape(-1, LEVEL_SAMPLES)).mean(axis=1))
            inputs[0, :, :CONTEXT_SAMPLES] = contexts_BC[:alive]
            inputs[1:, :, :CONTEXT_SAMPLES] = inputs[:-1, :, -CONTEXT_SAMPLES:]
            contexts_BC = inputs[-1, :, -CONTEXT_SAMPLES:]
            found, hidden, cell = self._session.run(
                ["speech_probs", "hn", "cn"],
                {
                    "input": inputs.reshape(count * alive, -1),
                    "layout": np.array([count, alive, STATE_SIZE]),
                    "h": hidden[:, :alive],
                    "c": cell[:, :alive],
                },
            )
            for b, probs_F in enumerate(found.reshape(alive, count)):
                probs[b].append(probs_F)
            first += count
        num_levels = FRAME_SAMPLES // LEVEL_SAMPLES
        return [
            (np.concatenate(p)[:num], np.concatenate(levels)[: num * num_levels])
            for p, levels, num in zip(probs, powers, num_frames, strict=True)
        ]


def _frames(audio_S: AudioSlices, first: int, count: int) -> np.ndarray:
    """Float32 ``[count, 512]`` from frame ``first`` on, zeros after the end."""
    frames = np.zeros((count, FRAME_SAMPLES), np.float32)
    heard = audio_S[first * FRAME_SAMPLES : (first + count) * FRAME_SAMPLES]
    frames.reshape(-1)[: len(heard)] = heard
    return frames


def _weights_path() -> str:
    return packaged_path("silero_vad", *WEIGHTS)


def speech_spans(probs_F: np.ndarray, powers_L: np.ndarray, num_samples: int, config: SileroConfig) -> list[HeardSpan]:
    """Spans by hysteresis, refined by the level, and padded.

    Positions are at 16 kHz, relative to the first frame. Where the padding of two neighbours would meet, the silence
    between them is shared.
    """
    active = _active(probs_F, num_samples, config)
    refined = (
        refine_edges(active, powers_L, LEVEL_SAMPLES, config.refine_ms * MODEL_RATE_HZ // 1000) if config.refine_ms else active
    )
    pad = config.pad_ms * MODEL_RATE_HZ // 1000
    spans = []
    for i, ((start, end), heard) in enumerate(zip(refined, active, strict=True)):
        before = pad if i == 0 else min(pad, (start - refined[i - 1].end_sample) // 2)
        after = pad if i + 1 == len(refined) else min(pad, (refined[i + 1].start_sample - end) // 2)
        prob = float(probs_F[heard.start_sample // FRAME_SAMPLES : -(-heard.end_sample // FRAME_SAMPLES)].mean())
        spans.append(HeardSpan(Span(max(0, start - before), min(num_samples, end + after)), speech_prob=prob))
    return spans


def _active(probs_F: np.ndarray, num_samples: int, config: SileroConfig) -> list[Span]:
    """Speech begins at ``onset`` and ends where it stays below ``offset`` for ``min_silence_ms``."""
    min_silence = config.min_silence_ms * MODEL_RATE_HZ // 1000
    min_speech = config.min_speech_ms * MODEL_RATE_HZ // 1000
    found: list[tuple[int, int]] = []
    start = quiet_since = -1
    for frame, prob in enumerate(probs_F.tolist()):
        sample = frame * FRAME_SAMPLES
        if prob >= config.onset:
            quiet_since = -1
            if start < 0:
                start = sample
        elif start >= 0 and prob < config.offset:
            if quiet_since < 0:
                quiet_since = sample
            if sample - quiet_since >= min_silence:
                found.append((start, quiet_since))
                start = quiet_since = -1
    if start >= 0:
        found.append((start, num_samples))
    return [Span(start, end) for start, end in found if end - start > min_speech]
