"""A cheap gate for music and steady noise, from the signal alone: which costly parts may be left out, or are asked for.

Speech comes in syllables: its bands rise and fall deeply, a third of its frames are quiet, its spectrum changes all the time
and no partial stays. Features after Scheirer and Slaney ("Construction and evaluation of a robust multifeature
speech/music discriminator", ICASSP 1997): low-energy frames and spectral flux; with them the depth of the bands' envelopes
and the share of spectral peaks that stay for a quarter of a second. Percussion without tones is taken for neither.

Shape legend: S samples, F frames, K frequency bins, B bands.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

FRAME_SAMPLES, HOP_SAMPLES = 512, 160
BAND_EDGES_HZ = np.geomspace(150.0, 6000.0, 9)
LOW_ENERGY_FRAMES = 100  # a frame is low against the second around it
LOUD_WITHIN_DB = 30.0
PEAK_SAMPLES, PEAK_HOP_SAMPLES = 2048, 800  # 7.8 Hz apart, every 50 ms
PEAK_RANGE_HZ = (80.0, 4060.0)
PEAK_WITHIN_DB, PEAK_ABOVE_MEDIAN_DB = 35.0, 15.0
STAY_HOPS = 5
FRAMES_AT_ONCE = 2048

ADDS = pa.schema(
    [
        field(
            "envelope_depth",
            pa.float32(),
            "standard deviation by mean of the level in eight bands; steady noise 0.2, speech over 1.2",
        ),
        field("low_energy_ratio", pa.float32(), "share of 10 ms frames under half the RMS of the second around them"),
        field("spectral_flux", pa.float32(), "median distance of the unit spectra of neighbouring loud frames, 0 to 1.41"),
        field("tonal_persistence", pa.float32(), "share of spectral peaks that are still there after 50 and 250 ms"),
        field("is_steady", pa.bool_(), "noise, hum or a tone without anything that comes and goes"),
        field("is_music", pa.bool_(), "tones that stay, or a spectrum that moves slowly and seldom pauses"),
    ]
)


class SoundGateConfig(AnnotatorConfigBase):
    """Where steady sound and music begin.

    The defaults are what benchmarks/quality/limits.py fits to all of its material; docs/quality.md has their errors, held out.
    """

    kind: Literal["sound_gate"] = "sound_gate"
    min_clip_s: float = Field(default=1.0, ge=0.5, description="shorter clips are abstained from")
    steady_depth: float = Field(default=0.5, gt=0, description="envelopes less deep: steady")
    music_persistence: float = Field(default=0.15, gt=0, description="peaks that stay, at least: music; or, both together,")
    music_flux: float = Field(default=0.2, gt=0, description="flux below this, and")
    music_low_energy: float = Field(default=0.3, gt=0, description="low-energy frames fewer than this")

    def build(self) -> SoundGate:
        return SoundGate(self)


class SoundGate:
    """Annotator: four features and two verdicts a clip; abstains on short clips and digital silence."""

    name = "sound_gate"
    version = "2"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: SoundGateConfig) -> None:
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        return batch.table([self._facts(audio) for audio in batch.audio], self.adds)

    def _facts(self, audio_S: Audio) -> dict[str, Any] | None:
        if len(audio_S) < self.config.min_clip_s * MODEL_RATE_HZ or float(np.abs(audio_S).max()) <= 1e-5:
            return None
        audio_S = audio_S - audio_S.mean(dtype=np.float64).astype(np.float32)
        magnitude_FK = _magnitudes(audio_S, FRAME_SAMPLES, HOP_SAMPLES)
        depth = envelope_depth(magnitude_FK)
        low, flux = low_energy_ratio(magnitude_FK), spectral_flux(magnitude_FK)
        persistence = tonal_persistence(_magnitudes(audio_S, PEAK_SAMPLES, PEAK_HOP_SAMPLES))
        is_steady = depth < self.config.steady_depth
        is_slow = flux < self.config.music_flux and low < self.config.music_low_energy
        return {
            "envelope_depth": depth,
            "low_energy_ratio": low,
            "spectral_flux": flux,
            "tonal_persistence": persistence,
            "is_steady": is_steady,
            "is_music": not is_steady and (persistence >= self.config.music_persistence or is_slow),
        }


def _magnitudes(audio_S: Audio, size: int, hop: int) -> np.ndarray:
    """Float32 ``[F, K]`` of Hann windows without padding."""
    frames_FS = np.lib.stride_tricks.sliding_window_view(audio_S, size)[::hop]
    window = np.hanning(size).astype(np.float32)
    blocks = range(0, len(frames_FS), FRAMES_AT_ONCE)
    return np.concatenate([np.abs(np.fft.rfft(frames_FS[b : b + FRAMES_AT_ONCE] * window, axis=1)) for b in blocks])


def envelope_depth(magnitude_FK: np.ndarray) -> float:
    """Standard deviation of a band's magnitude by its mean, averaged over eight bands."""
    edges = (BAND_EDGES_HZ * FRAME_SAMPLES / MODEL_RATE_HZ).astype(int)
    power_FB = np.add.reduceat(magnitude_FK[:, : edges[-1]] ** 2, edges[:-1], axis=1)
    level_FB = np.sqrt(power_FB)
    return float((level_FB.std(axis=0) / (level_FB.mean(axis=0) + 1e-9)).mean())


def low_energy_ratio(magnitude_FK: np.ndarray) -> float:
    """Share of frames under half the mean RMS of the second around them, or of as much of it as lies in the clip."""
    rms_F = np.sqrt((magnitude_FK**2).sum(axis=1))
    sums = np.concatenate([[0.0], np.cumsum(rms_F, dtype=np.float64)])
    at_F = np.arange(len(rms_F))
    first_F, stop_F = np.maximum(at_F - LOW_ENERGY_FRAMES // 2, 0), np.minimum(at_F + LOW_ENERGY_FRAMES // 2, len(rms_F))
    around_F = (sums[stop_F] - sums[first_F]) / (stop_F - first_F)
    return float((rms_F < 0.5 * around_F).mean())


def spectral_flux(magnitude_FK: np.ndarray) -> float:
    """Median Euclidean distance of neighbouring unit spectra, over frames within 30 dB of the loud ones."""
    norm_F = np.linalg.norm(magnitude_FK, axis=1)
    loud_F = norm_F >= np.percentile(norm_F, 95) * 10.0 ** (-LOUD_WITHIN_DB / 20.0)
    unit_FK = magnitude_FK / (norm_F[:, None] + 1e-9)
    return float(np.median(np.linalg.norm(np.diff(unit_FK, axis=0), axis=1)[loud_F[1:]]))


def tonal_persistence(magnitude_FK: np.ndarray) -> float:
    """Share of the peaks of loud frames that are peaks of the same bin 50 ms and 250 ms later; 0 without peaks."""
    first, last = (round(hz * PEAK_SAMPLES / MODEL_RATE_HZ) for hz in PEAK_RANGE_HZ)
    level_FK = 20.0 * np.log10(magnitude_FK[:, first:last] + 1e-7)
    top_F1 = level_FK.max(axis=1, keepdims=True)
    middle_FK = level_FK[:, 1:-1]
    is_peak = (middle_FK > level_FK[:, :-2]) & (middle_FK >= level_FK[:, 2:]) & (middle_FK > top_F1 - PEAK_WITHIN_DB)
    is_peak &= middle_FK > np.median(level_FK, axis=1, keepdims=True) + PEAK_ABOVE_MEDIAN_DB
    if len(is_peak) <= STAY_HOPS:
        return 0.0
    is_loud = (top_F1[:, 0] > np.percentile(top_F1, 95) - LOUD_WITHIN_DB)[:-STAY_HOPS]
    begun = is_peak[:-STAY_HOPS][is_loud]
    stays = begun & is_peak[1 : 1 - STAY_HOPS][is_loud] & is_peak[STAY_HOPS:][is_loud]
    return float(stays.sum() / max(1, begun.sum()))
