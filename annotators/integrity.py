"""Whether audio is what its header says, as far as the signal shows: misread samples, wrong speed, an upsampled telephone call.

- *Garbled.* Bytes read in the wrong sample format (swapped, shifted by one, of another depth or coding) sound like loud
  noise: even the loud frames have a flat spectrum, at a level that no speech has. Loud white noise reads the same.
- *Wrong speed.* A wrong rate moves pitch and syllable rate by one factor. Their logarithms are about normal over speakers,
  and nearly uncorrelated, so that the factor is a weighted mean of both (generalised least squares); only what lies beyond
  the range of children, men and fast talkers is called wrong.
- *Narrowband.* The bandwidth of the acquired file ends where a telephone's does, though its rate allows for more.

Shape legend: S samples, F frames of 32 ms, K frequency bins.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from manifests.contracts import Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

FRAME_S = 0.032
LOUD_WITHIN_DB = 30.0  # of the 95th percentile
MIN_GARBLED_S = 0.25
# Means and weights of ln(pitch) and ln(syllable rate), fitted with the limits (benchmarks/quality/speed_limit.py).
MEAN_PITCH_HZ, PITCH_WEIGHT = 194.2, 0.438
MEAN_RATE_HZ, RATE_WEIGHT = 2.99, 0.562

ADDS = pa.schema(
    [
        field("flatness", pa.float32(), "median spectral flatness of loud frames, 0 (tonal) to 1 (white); null under 0.25 s"),
        field("is_garbled", pa.bool_(), "sounds like bytes in the wrong sample format, or channels dealt out by a wrong header"),
        field("speed_ratio", pa.float32(), "speed against that of an average speaker, by pitch and syllable rate; 1 = as usual"),
        field("is_wrong_speed", pa.bool_(), "the speed is beyond the range of voices; null where pitch or rate is not known"),
        field("is_narrowband", pa.bool_(), "a telephone's bandwidth in a file of a higher rate; null for digital silence"),
    ]
)


class IntegrityConfig(AnnotatorConfigBase):
    """What counts as garbled, as wrong speed and as narrowband.

    The defaults are what benchmarks/quality/limits.py fits to all of its material; docs/quality.md has their errors, held out.
    """

    kind: Literal["integrity"] = "integrity"
    prosody: str = Field(default="prosody", description="name of the prosody layer that pitch and syllable rate are read from")
    garbled_flatness: float = Field(default=0.08, gt=0, lt=1, description="loud frames at least this flat, and")
    garbled_dbfs: float = Field(default=-12.0, le=0, description="a level at least this high: garbled")
    min_voiced_ratio: float = Field(default=0.2, ge=0, le=1, description="with fewer voiced frames no speed is told")
    wrong_speed: float = Field(default=1.65, gt=1, description="speeds above this, or below its inverse, are wrong")
    narrowband_hz: float = Field(default=4700.0, gt=0, description="a bandwidth below this is a telephone's")

    def build(self) -> Integrity:
        return Integrity(self)


class Integrity:
    """Annotator: five facts a clip about header and signal; abstains on a clip without samples."""

    name = "integrity"
    version = "3"
    hears = Hearing.NATIVE
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: IntegrityConfig) -> None:
        self.config = config

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.config.prosody, "recording")

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        prosody, recordings = (batch.layers[name].to_pylist() for name in self.reads)
        clips = zip(batch.audio, batch.sample_rates_hz, prosody, recordings, strict=True)
        return batch.table([self._facts(*clip) if len(clip[0]) else None for clip in clips], self.adds)

    def _facts(self, audio_S: Audio, sample_rate_hz: int, prosody: dict[str, Any], recording: dict[str, Any]) -> dict[str, Any]:
        flatness = loud_flatness(audio_S, sample_rate_hz)
        speed = None
        if (prosody["voiced_ratio"] or 0.0) >= self.config.min_voiced_ratio:
            speed = speed_ratio(prosody["pitch_hz"], prosody["syllable_rate_hz"])
        return {
            "flatness": flatness,
            "is_garbled": bool(recording["is_interleaved"]) or self._is_misread(audio_S, flatness),
            "speed_ratio": speed,
            "is_wrong_speed": None if speed is None else abs(math.log(speed)) > math.log(self.config.wrong_speed),
            "is_narrowband": self._is_narrowband(recording["bandwidth_hz"], recording["source_sample_rate_hz"]),
        }

    def _is_misread(self, audio_S: Audio, flatness: float | None) -> bool | None:
        if flatness is None:
            return None
        power = float(np.mean(audio_S.astype(np.float64) ** 2))
        return flatness >= self.config.garbled_flatness and power >= 10.0 ** (self.config.garbled_dbfs / 10.0)

    def _is_narrowband(self, bandwidth_hz: float | None, source_rate_hz: int) -> bool | None:
        limit = self.config.narrowband_hz
        return None if bandwidth_hz is None else bandwidth_hz < limit and source_rate_hz > 2 * limit


def loud_flatness(audio_S: Audio, sample_rate_hz: int) -> float | None:
    """Median over loud frames of geometric by arithmetic mean of the power spectrum; None under 0.25 s or without sound."""
    size = round(FRAME_S * sample_rate_hz)
    x_S = audio_S.astype(np.float64) - float(np.mean(audio_S))
    if len(x_S) < MIN_GARBLED_S * sample_rate_hz or float(np.abs(x_S).max()) <= 1e-6:
        return None
    frames_FS = x_S[: len(x_S) // size * size].reshape(-1, size)
    power_F = (frames_FS**2).mean(axis=1)
    loud_FS = frames_FS[power_F >= np.percentile(power_F, 95) * 10.0 ** (-LOUD_WITHIN_DB / 10.0)]
    power_FK = np.abs(np.fft.rfft(loud_FS * np.hanning(size), axis=1))[:, 1:] ** 2 + 1e-20
    return float(np.median(np.exp(np.log(power_FK).mean(axis=1)) / power_FK.mean(axis=1)))


def speed_ratio(pitch_hz: float | None, syllable_rate_hz: float | None) -> float | None:
    """How many times faster than the average speaker; None unless both are known."""
    if not pitch_hz or not syllable_rate_hz:
        return None
    logs = PITCH_WEIGHT * math.log(pitch_hz / MEAN_PITCH_HZ) + RATE_WEIGHT * math.log(syllable_rate_hz / MEAN_RATE_HZ)
    return math.exp(logs)
