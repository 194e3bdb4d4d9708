"""Pitch, speaking rate and loudness of a clip, from 16 kHz audio."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.pitch import HOP_SAMPLES, WEIGHTS, load_network, pitch_hz
from annotators.syllables import syllable_rate_hz
from annotators.weights import packaged_model, packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

FRAMES_A_SECOND = MODEL_RATE_HZ / HOP_SAMPLES
MIN_LOUDNESS_S = 0.4  # one gating block of ITU-R BS.1770

ADDS = pa.schema(
    [
        field(
            "pitch_hz",
            pa.float32(),
            "median fundamental frequency of the voiced frames (SwiftF0), outliers left out; null without enough voice",
        ),
        field("pitch_p05_hz", pa.float32(), "5th percentile of the fundamental frequency"),
        field("pitch_p95_hz", pa.float32(), "95th percentile of the fundamental frequency"),
        field("pitch_std_semitones", pa.float32(), "standard deviation of the fundamental frequency in semitones"),
        field("voiced_ratio", pa.float32(), "share of 16 ms frames that are voiced; null under 50 ms"),
        field("loudness_lufs", pa.float32(), "integrated loudness, ITU-R BS.1770-4; null under 0.4 s or below the gate (-70)"),
        field("syllable_rate_hz", pa.float32(), "syllable nuclei a second of speaking time (after de Jong and Wempe 2009)"),
    ]
)


class ProsodyConfig(AnnotatorConfigBase):
    """Prosody; pitch statistics need ``min_voiced_s`` of voiced frames, or are null."""

    kind: Literal["prosody"] = "prosody"
    min_voiced_s: float = Field(default=0.2, gt=0, description="voiced time that pitch statistics need")
    min_rate_s: float = Field(default=0.5, gt=0, description="shorter clips get no syllable rate")

    def build(self) -> Prosody:
        return Prosody(self)


class Prosody:
    """Annotator: seven prosody facts a clip; abstains on a clip without samples."""

    name = "prosody"
    version = "3"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: ProsodyConfig) -> None:
        self.config = config
        self._meter: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (packaged_model("MIT", *WEIGHTS),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity(), self.models[0].digest)

    def setup(self) -> None:
        load_network()
        if self._meter is None:
            packaged_path("pyloudnorm")
            import pyloudnorm

            self._meter = pyloudnorm.Meter(MODEL_RATE_HZ)

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        return batch.table([self._facts(audio) if len(audio) else None for audio in batch.audio], self.adds)

    def _facts(self, audio_S: Audio) -> dict[str, Any]:
        hz_F = pitch_hz(audio_S)
        voiced_F = np.isfinite(hz_F)
        facts: dict[str, Any] = {"loudness_lufs": self._loudness_lufs(audio_S)}
        if len(hz_F):
            facts["voiced_ratio"] = float(voiced_F.mean())
        if voiced_F.sum() >= self.config.min_voiced_s * FRAMES_A_SECOND:
            usual = usual_pitch(hz_F[voiced_F])
            p05, median, p95 = (float(value) for value in np.percentile(usual, [5, 50, 95]))
            facts |= {"pitch_hz": median, "pitch_p05_hz": p05, "pitch_p95_hz": p95}
            facts["pitch_std_semitones"] = float(np.std(12.0 * np.log2(usual)))
        if len(audio_S) >= self.config.min_rate_s * MODEL_RATE_HZ:
            facts["syllable_rate_hz"] = syllable_rate_hz(audio_S, voiced_F)
        return facts

    def _loudness_lufs(self, audio_S: Audio) -> float | None:
        if len(audio_S) < MIN_LOUDNESS_S * MODEL_RATE_HZ:
            return None
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            # With every block below the gate, pyloudnorm takes the mean of none; the answer is -inf, a null here.
            warnings.simplefilter("ignore", RuntimeWarning)
            loudness = float(self._meter.integrated_loudness(audio_S.astype(np.float64)))
        return loudness if math.isfinite(loudness) else None


def usual_pitch(hz_F: np.ndarray) -> np.ndarray:
    """The values within the speaker's range, 0.75 times the first quartile to 1.5 times the third, without octave errors.

    Source: De Looze and Hirst, "Detecting changes in key and range for the automatic modelling and coding of
    intonation", Speech Prosody 2008.
    """
    first, third = np.percentile(hz_F, [25, 75])
    return hz_F[(hz_F >= 0.75 * first) & (hz_F <= 1.5 * third)]
