"""Slaney's mel filter bank: the one that the annotators' networks, the codec and the encoder read spectra through.

The scale is that of Slaney's Auditory Toolbox (1998): 200/3 Hz a mel up to 1 kHz, above it a factor of 6.4 in 27 mels.

Shape legend: K frequency bins of a Fourier transform (``n_fft // 2 + 1``, from 0 to half the rate), M mel bands.
"""

from __future__ import annotations

import functools

import numpy as np

LINEAR_HZ_PER_MEL = 200.0 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0


def mels_of(hertz: np.ndarray | float) -> np.ndarray:
    """Float64: frequencies on the scale, of the same shape."""
    above = BREAK_MEL + np.log(np.maximum(hertz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(np.less(hertz, BREAK_HZ), np.divide(hertz, LINEAR_HZ_PER_MEL), above)


def slaney_triangles(sample_rate_hz: int, n_fft: int, num_mels: int) -> tuple[np.ndarray, np.ndarray]:
    """Float64 ``[M, K]`` triangles of peak 1 and float64 ``[M, 1]`` their widths in Hz; centres are even in mel."""
    mels = np.linspace(0.0, mels_of(sample_rate_hz / 2), num_mels + 2)
    edges = np.where(mels < BREAK_MEL, mels * LINEAR_HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mels - BREAK_MEL)))
    bins_K = np.fft.rfftfreq(n_fft, 1.0 / sample_rate_hz)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins_K - low) / (centre - low), (high - bins_K) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)), high - low


@functools.lru_cache(maxsize=8)
def slaney_filters(sample_rate_hz: int, n_fft: int, num_mels: int) -> np.ndarray:
    """Float32 ``[M, K]``: the triangles with unit area in Hz, as librosa and Whisper have them."""
    triangles_MK, widths_M1 = slaney_triangles(sample_rate_hz, n_fft, num_mels)
    return (triangles_MK * (2.0 / widths_M1)).astype(np.float32)
