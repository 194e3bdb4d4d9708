"""Fundamental frequency by SwiftF0, a small network inside the swift-f0 wheel (Nieradzik 2025, arXiv 2508.18440).

On made voices it has no octave errors down to 0 dB SNR, where an autocorrelation method loses every eighth frame
(docs/decisions/0014-pitch-and-shared-windows.md).

Shape legend: S samples, F frames of 16 ms.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from annotators.weights import packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio

WEIGHTS = ("swift_f0", "model.onnx")
HOP_SAMPLES = 256
FLOOR_HZ, CEILING_HZ = 60.0, 600.0
VOICED_CONFIDENCE = 0.5  # what the network's confidence is calibrated for
MIN_SAMPLES = MODEL_RATE_HZ // 20  # three periods of the floor
# The network takes frames that peak below 0.001 for silence: quiet recordings are brought to this peak first.
PEAK = 0.5


@functools.cache
def load_detector() -> Any:
    """The package's own detector, with one thread. Raises ModelUnavailable when it is not installed."""
    packaged_path(*WEIGHTS)
    import swift_f0

    return swift_f0.SwiftF0(threads=1, spin=False)


def pitch_hz(audio_S: Audio) -> np.ndarray:
    """Float64 ``[F]`` of 16 kHz audio; frame ``f`` is centred on sample ``256 f``; NaN where unvoiced. Empty under 50 ms."""
    if len(audio_S) < MIN_SAMPLES:
        return np.zeros(0)
    audio_S = audio_S - audio_S.mean(dtype=np.float64).astype(np.float32)
    peak = float(np.abs(audio_S).max())
    if peak <= 1e-6:
        return np.full(len(audio_S) // HOP_SAMPLES, np.nan)
    found = load_detector().detect(audio_S * np.float32(PEAK / peak), MODEL_RATE_HZ, FLOOR_HZ, CEILING_HZ)
    return np.where(found.confidence >= VOICED_CONFIDENCE, found.pitch_hz, np.nan)
