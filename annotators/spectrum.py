"""Statistics of a clip's spectrum as one vector: what small classifiers are fitted on. No model, no weights.

Frames are of 25 ms every 10 ms; only *active* ones count, so that silence before and after the words moves nothing. The gain
of the recording moves only the first coefficient's mean.

Shape legend: S samples, F frames, M mel bands, C cepstral coefficients, V values.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.mel import mel_power
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.mel import slaney_triangles
from manifests.schema import field

FFT_SAMPLES, HOP_SAMPLES, NUM_MELS = 400, 160, 40
NUM_CEPSTRA = 20
ACTIVE_DB = 40.0
SILENT_POWER = 4e-6  # of a frame: a tone at -80 dBFS
DELTA_FRAMES = 2  # on both sides
SHAPES = ("centroid", "spread", "slope_db", "flatness", "flux_db", "high_share")
HIGH_HZ = 1000.0
# mean, standard deviation, and standard deviation of the deltas, of each cepstral coefficient and shape
NUM_VALUES = 3 * (NUM_CEPSTRA + len(SHAPES))

ADDS = pa.schema(
    [
        field(
            "spectrum",
            pa.list_(pa.float32()),
            f"{NUM_VALUES} values: means, then standard deviations, then standard deviations of the deltas, of {NUM_CEPSTRA} mel "
            f"cepstra (dB) and {', '.join(SHAPES)}; over active frames; null when abstained",
        ),
        field("active_s", pa.float32(), "seconds of active frames that the values stand on"),
    ]
)


class SpectrumConfig(AnnotatorConfigBase):
    """Spectrum statistics; a clip with less than ``min_active_s`` of active frames gets none."""

    kind: Literal["spectrum"] = "spectrum"
    min_active_s: float = Field(default=0.2, ge=0.05, description="active frames that the statistics need")

    def build(self) -> Spectrum:
        return Spectrum(self)


class Spectrum:
    """Annotator: one vector of 78 values a clip; abstains on silence and with too little sound."""

    name = "spectrum"
    version = "2"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: SpectrumConfig) -> None:
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        return batch.table([self._row(audio) for audio in batch.audio], self.adds)

    def _row(self, audio_S: Audio) -> dict[str, object] | None:
        if len(audio_S) < FFT_SAMPLES:
            return None
        mel_FM = mel_power(audio_S, MODEL_RATE_HZ, FFT_SAMPLES, HOP_SAMPLES, NUM_MELS).astype(np.float64)
        active_F = active_frames(mel_FM)
        active_s = float(active_F.sum()) * HOP_SAMPLES / MODEL_RATE_HZ
        if active_s < self.config.min_active_s:
            return None
        return {"spectrum": statistics(mel_FM, active_F).astype(np.float32).tolist(), "active_s": active_s}


def active_frames(mel_FM: np.ndarray) -> np.ndarray:
    """Bool ``[F]``: frames within 40 dB of the clip's level, with both neighbours on either side; none in silence.

    The level is the mean power of the frames weighted by their power, which silence cannot move. Neighbours count because a
    delta at the edge of the sound would measure how deep the silence is.
    """
    power_F = mel_FM.sum(axis=1, dtype=np.float64)
    total = float(power_F.sum())
    level = float((power_F**2).sum()) / total if total > 0 else 0.0
    if level < SILENT_POWER:
        return np.zeros(len(power_F), bool)
    loud_F = np.pad(power_F >= level * 10.0 ** (-ACTIVE_DB / 10.0), DELTA_FRAMES)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(loud_F, 2 * DELTA_FRAMES + 1).all(axis=1))


def statistics(mel_FM: np.ndarray, active_F: np.ndarray) -> np.ndarray:
    """Float64 ``[V]`` over the active frames, in the order that the column states."""
    frames_FV = np.concatenate([cepstra(mel_FM), shapes(mel_FM)], axis=1)
    inside_FV = frames_FV[active_F]
    return np.concatenate([inside_FV.mean(axis=0), inside_FV.std(axis=0), _deltas(frames_FV)[active_F].std(axis=0)])


def decibels(mel_FM: np.ndarray) -> np.ndarray:
    """Mel power in dB, not below 80 dB under the clip's strongest band."""
    return 10.0 * np.log10(np.maximum(mel_FM, max(float(mel_FM.max()) * 1e-8, 1e-12)))


def cepstra(mel_FM: np.ndarray) -> np.ndarray:
    """Float64 ``[F, C]``: orthonormal DCT-II over the mel bands in dB (Davis and Mermelstein 1980)."""
    m, c = np.arange(NUM_MELS), np.arange(NUM_CEPSTRA)
    basis_MC = np.sqrt(2.0 / NUM_MELS) * np.cos(np.pi * np.outer(m + 0.5, c) / NUM_MELS)
    basis_MC[:, 0] /= np.sqrt(2.0)
    return decibels(mel_FM) @ basis_MC


def shapes(mel_FM: np.ndarray) -> np.ndarray:
    """Float64 ``[F, 6]``, of each frame:

    centroid and spread over the bands (0 to M), slope of the dB over the bands (dB a band), flatness (dB: geometric over
    arithmetic mean), flux (mean rise of a band over the frame before, dB) and the share of power above 1 kHz.
    """
    bands_M = np.arange(NUM_MELS)
    power_F = np.maximum(mel_FM.sum(axis=1), 1e-12)
    centroid_F = mel_FM @ bands_M / power_F
    spread_F = np.sqrt(np.maximum(mel_FM @ bands_M**2 / power_F - centroid_F**2, 0.0))
    db_FM = decibels(mel_FM)
    centred_M = bands_M - bands_M.mean()
    slope_F = db_FM @ centred_M / (centred_M @ centred_M)
    flatness_F = db_FM.mean(axis=1) - 10.0 * np.log10(power_F / NUM_MELS)
    flux_F = np.maximum(np.diff(db_FM, axis=0, prepend=db_FM[:1]), 0.0).mean(axis=1)
    high_F = mel_FM[:, _first_band_above(HIGH_HZ) :].sum(axis=1) / power_F
    return np.stack([centroid_F, spread_F, slope_F, flatness_F, flux_F, high_F], axis=1)


def _first_band_above(hz: float) -> int:
    """Index of the first mel band whose centre lies above ``hz``."""
    triangles_MK, _ = slaney_triangles(MODEL_RATE_HZ, FFT_SAMPLES, NUM_MELS)
    centres_M = triangles_MK.argmax(axis=1) * MODEL_RATE_HZ / FFT_SAMPLES
    return int(np.flatnonzero(centres_M > hz)[0])


def _deltas(frames_FV: np.ndarray) -> np.ndarray:
    """Slope a frame over two frames on both sides, ends repeated (Furui 1986)."""
    padded = np.pad(frames_FV, ((DELTA_FRAMES, DELTA_FRAMES), (0, 0)), mode="edge")
    offsets = range(1, DELTA_FRAMES + 1)
    num = len(frames_FV)
    rises = [k * (padded[DELTA_FRAMES + k :][:num] - padded[DELTA_FRAMES - k :][:num]) for k in offsets]
    return np.sum(rises, axis=0) / (2.0 * sum(k * k for k in offsets))
