"""Mel spectra in numpy, with the filter bank of Slaney's Auditory Toolbox (1998), which both wheels' networks were trained on.

Equal to ``librosa.feature.melspectrogram`` (0.10 and later: centred, zeros outside) within float32 rounding, so that
librosa, and numba with it, need not be installed.

Shape legend: S samples, F frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import functools

import numpy as np

from manifests.contracts import Audio

LINEAR_HZ_PER_MEL = 200.0 / 3
BREAK_HZ = 1000.0  # below: linear; above: logarithmic, 27 mels for a factor of 6.4
BREAK_MEL = BREAK_HZ / LINEAR_HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0
FRAMES_AT_ONCE = 4096  # bounds memory on long audio


@functools.lru_cache(maxsize=8)
def slaney_filters(sample_rate_hz: int, n_fft: int, num_mels: int) -> np.ndarray:
    """Float32 ``[M, K]``: triangles of unit area in Hz, from 0 to half the rate."""
    top_mel = BREAK_MEL + np.log(sample_rate_hz / 2 / BREAK_HZ) / LOG_STEP
    mels = np.linspace(0.0, top_mel, num_mels + 2)
    edges = np.where(mels < BREAK_MEL, mels * LINEAR_HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mels - BREAK_MEL)))
    bins_K = np.fft.rfftfreq(n_fft, 1.0 / sample_rate_hz)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins_K - low) / (centre - low), (high - bins_K) / (high - centre)
    filters_MK = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))
    return filters_MK.astype(np.float32)


def mel_power(audio_S: Audio, sample_rate_hz: int, n_fft: int, hop_samples: int, num_mels: int) -> np.ndarray:
    """Float32 ``[F, M]`` mel power; frame ``f`` is centred on sample ``f * hop_samples``, Hann window of ``n_fft``."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(audio_S.astype(np.float64), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_samples]
    filters_KM = slaney_filters(sample_rate_hz, n_fft, num_mels).T
    blocks = []
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        spectrum_FK = np.fft.rfft(frames[first : first + FRAMES_AT_ONCE] * window, axis=1)
        power_FK = (spectrum_FK.real**2 + spectrum_FK.imag**2).astype(np.float32)
        blocks.append(power_FK @ filters_KM)
    return np.concatenate(blocks)
