"""A pyannote ``SpeakerDiarization`` over recordings of any length: stretch by stretch, their speakers linked."""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from annotators.silence import is_silent
from annotators.speaker_links import SpeakerLinks
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan
from manifests.spans import Span, merge

MIN_SAMPLES = MODEL_RATE_HZ // 4  # under 0.25 s no voice can be told


class DiarizationStretches(ABC):
    """What segmenters on a pyannote pipeline share: turns ``speaker_0``, ``speaker_1``, … in order of first appearance.

    Memory and the number of speakers stay bounded: clustering takes the square of what is clustered at once.
    """

    def __init__(self, stretch_s: float, link_threshold: float) -> None:
        self._stretch_samples, self._link_threshold = int(stretch_s * MODEL_RATE_HZ), link_threshold
        self._pipeline: Any = None

    @abstractmethod
    def setup(self) -> None:
        """Load ``_pipeline``."""

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        self.setup()
        audio_S = channel.audio
        links = SpeakerLinks(self._link_threshold)
        turns: dict[int, list[Span]] = {}
        for start, end in stretches(len(audio_S), self._stretch_samples):
            spans_by_voice, centroids_ND = self._diarize(audio_S[start:end])
            weights_N = np.array([sum(s.num_samples for s in spans) for spans in spans_by_voice], np.float64)
            for speaker, spans in zip(links.assign(centroids_ND, weights_N), spans_by_voice, strict=True):
                turns.setdefault(speaker, []).extend(Span(start + s.start_sample, start + s.end_sample) for s in spans)
        return _labelled({speaker: merge(spans) for speaker, spans in turns.items()})

    def _diarize(self, audio_S: Audio) -> tuple[list[list[Span]], np.ndarray]:
        """Turns of each voice of one stretch, relative to its start, and the voices' centroids ``[N, D]``."""
        if not has_sound(audio_S):
            return [], np.zeros((0, 1))
        with warnings.catch_warnings():
            # With no voice heard for a second alone, pyannote takes the mean of no embeddings; SpeakerLinks knows what to do.
            warnings.filterwarnings("ignore", message="Mean of empty slice|invalid value encountered", category=RuntimeWarning)
            output = self._pipeline(as_file(audio_S))
        diarization = output.speaker_diarization
        return [spans_of(diarization.label_timeline(label), len(audio_S)) for label in diarization.labels()], (
            output.speaker_embeddings
        )


def stretches(num_samples: int, longest: int) -> list[tuple[int, int]]:
    """(start, end) of equal stretches: a short rest at the end would have too little speech to tell its voices."""
    count = max(1, -(-num_samples // longest))
    return list(itertools.pairwise(num_samples * i // count for i in range(count + 1)))


def has_sound(audio_S: Audio) -> bool:
    """Whether there is anything that pyannote could hear: it fails on almost nothing, and answers to silence."""
    return len(audio_S) >= MIN_SAMPLES and not is_silent(audio_S)


def as_file(audio_S: Audio) -> dict[str, Any]:
    """Audio as pyannote takes it from memory."""
    import torch

    waveform = torch.from_numpy(np.ascontiguousarray(audio_S, dtype=np.float32))[None]
    return {"waveform": waveform, "sample_rate": MODEL_RATE_HZ, "uri": "channel"}


def spans_of(timeline: Any, num_samples: int) -> list[Span]:
    """The segments of a pyannote timeline, at 16 kHz and inside the audio."""
    spans = [Span(round(s.start * MODEL_RATE_HZ), min(num_samples, round(s.end * MODEL_RATE_HZ))) for s in timeline]
    return [Span(max(0, s.start_sample), s.end_sample) for s in spans if s.num_samples > 0]


def _labelled(turns: dict[int, list[Span]]) -> list[HeardSpan]:
    """All turns by start; labels count speakers in the order in which they are first heard."""
    order = sorted((speaker for speaker in turns if turns[speaker]), key=lambda speaker: (turns[speaker][0], speaker))
    label = {speaker: f"speaker_{i}" for i, speaker in enumerate(order)}
    found = [HeardSpan(span, speaker_label=label[speaker]) for speaker in order for span in turns[speaker]]
    return sorted(found, key=lambda heard: (heard.span, heard.speaker_label))
