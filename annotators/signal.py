"""Facts about the signal itself, at the stored rate: level, clipping, silence, DC, bandwidth, SNR, reverberation. No model."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators import snr
from annotators.bandwidth import WITHIN_DB, LongTermSpectrum
from annotators.reverberation import c50_db
from manifests.contracts import Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

FLOOR_DBFS = -120.0  # what digital silence is given
FRAME_S = 0.02
MIN_RUN = 3  # samples: fewer at one value happen in unclipped audio
MIN_PLATEAU_PEAK = 0.1  # below -20 dBFS equal neighbours come from 16-bit rounding, not from clipping
MIN_SNR_S = 0.5

ADDS = pa.schema(
    [
        field("peak_dbfs", pa.float32(), "largest magnitude, dB re full scale; -120 for digital silence"),
        field("rms_dbfs", pa.float32(), "RMS level, dB re full scale (a full-scale square wave is 0); -120 for digital silence"),
        field("dc_offset", pa.float32(), "mean of the samples, 1.0 = full scale"),
        field(
            "clipped_ratio", pa.float32(), "share of samples in runs of 3 or more at full scale or flat at the clip's own peak"
        ),
        field("silence_ratio", pa.float32(), "share of 20 ms frames that are silent (silence_dbfs, silence_below_db)"),
        field("longest_silence_s", pa.float32(), "longest run of silent 20 ms frames, in seconds"),
        field("bandwidth_hz", pa.float32(), "highest frequency whose long-term power is within bandwidth_db of the strongest"),
        field("snr_db", pa.float32(), "WADA-SNR (Kim and Stern 2008), -20 to 100; null under 0.5 s or without sound"),
        field(
            "c50_db",
            pa.float32(),
            "clarity estimated from decays of speech (after Wen et al. 2008), -5 (a hall) to 25 (dry); null with too few of them",
        ),
    ]
)


class SignalConfig(AnnotatorConfigBase):
    """Signal facts; the three levels say what counts as silence and as bandwidth."""

    kind: Literal["signal"] = "signal"
    silence_dbfs: float = Field(default=-60.0, le=0, description="a frame below this level is silent")
    silence_below_db: float = Field(
        default=40.0, gt=0, description="so is one this far below the clip's loud frames (95th percentile)"
    )
    bandwidth_db: float = Field(
        default=WITHIN_DB, gt=0, description="power below the strongest frequency that ends the bandwidth"
    )
    clip_level: float = Field(default=0.999, gt=0, le=1, description="magnitude that counts as full scale")

    def build(self) -> Signal:
        return Signal(self)


class Signal:
    """Annotator: nine signal facts a clip; abstains on a clip without samples."""

    name = "signal"
    version = "2"
    hears = Hearing.NATIVE
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: SignalConfig) -> None:
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        rows = [self._facts(audio, rate) for audio, rate in zip(batch.audio, batch.sample_rates_hz, strict=True)]
        return batch.table(rows, self.adds)

    def _facts(self, audio_S: Audio, sample_rate_hz: int) -> dict[str, Any] | None:
        if len(audio_S) == 0:
            return None
        x_S = audio_S.astype(np.float64)
        spectrum = LongTermSpectrum(sample_rate_hz)
        spectrum.add(x_S[:, None])
        silent_F = silent_frames(x_S, sample_rate_hz, self.config.silence_dbfs, self.config.silence_below_db)
        return {
            "peak_dbfs": dbfs(float(np.abs(x_S).max())),
            "rms_dbfs": dbfs(float(np.sqrt(np.mean(x_S**2)))),
            "dc_offset": float(x_S.mean()),
            "clipped_ratio": clipped_ratio(x_S, self.config.clip_level),
            "silence_ratio": float(silent_F.mean()),
            "longest_silence_s": longest_run(silent_F) * FRAME_S,
            "bandwidth_hz": spectrum.bandwidth_hz(self.config.bandwidth_db),
            "snr_db": snr.wada_snr_db(x_S) if len(x_S) >= MIN_SNR_S * sample_rate_hz else None,
            "c50_db": c50_db(x_S, sample_rate_hz),
        }


def dbfs(magnitude: float) -> float:
    """Decibels re full scale, not below -120."""
    return max(FLOOR_DBFS, 20.0 * float(np.log10(magnitude))) if magnitude > 0 else FLOOR_DBFS


def frame_levels_db(x_S: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """RMS level ``[F]`` in dBFS of 20 ms frames without overlap; a rest under one frame counts only when it is all there is."""
    size = max(1, round(FRAME_S * sample_rate_hz))
    count = max(1, len(x_S) // size)
    frames = x_S[: count * size].reshape(count, -1)
    return np.maximum(FLOOR_DBFS, 10.0 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12)))


def silent_frames(x_S: np.ndarray, sample_rate_hz: int, silence_dbfs: float, below_db: float) -> np.ndarray:
    """Bool ``[F]`` over 20 ms frames: below the absolute level, or far below the clip's own loud frames."""
    levels_F = frame_levels_db(x_S, sample_rate_hz)
    return levels_F < max(silence_dbfs, float(np.percentile(levels_F, 95)) - below_db)


def longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def clipped_ratio(x_S: np.ndarray, clip_level: float) -> float:
    """Share of samples in runs of three or more at full scale, or exactly flat at the clip's own positive or negative peak.

    The second kind finds audio that was clipped and then turned down; a constant signal is not clipped.
    """
    clipped_S = _long_runs(x_S >= clip_level) | _long_runs(x_S <= -clip_level)
    high, low = float(x_S.max()), float(x_S.min())
    if high > low:
        for peak in (high, low):
            if abs(peak) >= MIN_PLATEAU_PEAK:
                clipped_S |= _long_runs(x_S == peak)
    return float(clipped_S.mean())


def _long_runs(flags: np.ndarray) -> np.ndarray:
    """The flags that stand in runs of at least MIN_RUN."""
    kept = np.zeros(len(flags), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        kept[start:end] = end - start >= MIN_RUN
    return kept
