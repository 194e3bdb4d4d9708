"""Rhythm of a clip: how much of it is pause, and how even the syllables come. From VAD and the intensity contour; no model.

Evenness is the normalised pairwise variability index (Grabe and Low, "Durational variability in speech and the rhythm class
hypothesis", 2002) over the times between syllable nuclei instead of over vowels, whose edges nobody marks here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.syllables import BELOW_LOUD_DB, HOP_SAMPLES, intensity_db, nuclei
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

ADDS = pa.schema(
    [
        field(
            "pause_ratio", pa.float32(), "share of the time from the first speech to the last that is pause; null without speech"
        ),
        field("num_pauses", pa.int32(), "pauses of at least min_pause_s between speech; null without speech"),
        field(
            "npvi",
            pa.float32(),
            "variability of the times between syllable nuclei (Grabe and Low 2002), 0: even, 200: at most; null with too few",
        ),
    ]
)


class RhythmConfig(AnnotatorConfigBase):
    """Rhythm, where the clip set's VAD hears speech."""

    kind: Literal["rhythm"] = "rhythm"
    min_pause_s: float = Field(default=0.2, gt=0, description="shorter gaps between speech are closures of consonants, no pauses")
    min_pairs: int = Field(default=5, ge=1, description="pairs of neighbouring times between nuclei that npvi needs")

    def build(self) -> Rhythm:
        return Rhythm(self)


class Rhythm:
    """Annotator: pauses and evenness of a clip; abstains where VAD hears no speech."""

    name = "rhythm"
    version = "1"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ("clip",)
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: RhythmConfig) -> None:
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        clips = batch.layers["clip"].to_pylist()
        return batch.table([self._row(clip, audio) for clip, audio in zip(clips, batch.audio, strict=True)], self.adds)

    def _row(self, clip: dict[str, Any], audio_S: Audio) -> dict[str, Any] | None:
        rate = clip["sample_rate_hz"]
        spans_s = [(span["start_sample"] / rate, span["end_sample"] / rate) for span in clip["speech_spans"]]
        if not spans_s or not len(audio_S):
            return None
        gaps_s = [start - end for (_, end), (start, _) in itertools.pairwise(spans_s)]
        pauses_s = [gap_s for gap_s in gaps_s if gap_s >= self.config.min_pause_s]
        pairs = neighbouring_times(nuclei_s(audio_S), spans_s, self.config.min_pause_s)
        return {
            "pause_ratio": sum(pauses_s) / (spans_s[-1][1] - spans_s[0][0]),
            "num_pauses": len(pauses_s),
            "npvi": npvi(pairs) if len(pairs) >= self.config.min_pairs else None,
        }


def nuclei_s(audio_S: Audio) -> np.ndarray:
    """Times of the syllable nuclei of 16 kHz audio in seconds, voiced or not."""
    level_F = intensity_db(audio_S)
    peaks = nuclei(level_F, float(np.percentile(level_F, 99)) - BELOW_LOUD_DB)
    return np.array(peaks) * HOP_SAMPLES / MODEL_RATE_HZ


def neighbouring_times(
    nuclei_s: np.ndarray, spans_s: Sequence[tuple[float, float]], min_pause_s: float
) -> list[tuple[float, float]]:
    """Pairs of successive times between nuclei, all three nuclei in one stretch of speech without a pause in it."""
    pairs: list[tuple[float, float]] = []
    for start_s, end_s in _stretches(spans_s, min_pause_s):
        times = np.diff(nuclei_s[(nuclei_s >= start_s) & (nuclei_s < end_s)])
        pairs += zip(times[:-1].tolist(), times[1:].tolist(), strict=True)
    return pairs


def npvi(pairs: Sequence[tuple[float, float]]) -> float:
    """100 times the mean of the pairs' differences over their means."""
    return 100.0 * float(np.mean([abs(a - b) / ((a + b) / 2) for a, b in pairs]))


def _stretches(spans_s: Sequence[tuple[float, float]], min_pause_s: float) -> list[tuple[float, float]]:
    """The spans, joined over gaps that are no pauses."""
    joined = [spans_s[0]]
    for start_s, end_s in spans_s[1:]:
        if start_s - joined[-1][1] < min_pause_s:
            joined[-1] = (joined[-1][0], end_s)
        else:
            joined.append((start_s, end_s))
    return joined
