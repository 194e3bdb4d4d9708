"""Mel spectra in numpy, through Slaney's filter bank, which both wheels' networks were trained on.

Equal to ``librosa.feature.melspectrogram`` (0.10 and later: centred, zeros outside) within float32 rounding, so that
librosa, and numba with it, need not be installed.

Shape legend: S samples, F frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import numpy as np

from manifests.contracts import Audio
from manifests.mel import slaney_filters

FRAMES_AT_ONCE = 1024  # bounds memory on long audio; with more, the blocks leave the cache and cost half as much again


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
