"""Effective bandwidth: where the long-term spectrum of audio ends, gathered block by block.

It shows a telephone call in a file of 16 or 44.1 kHz, and what a lossy codec cut off.

Shape legend: S samples, C channels, F frames of 40 ms, K frequency bins 25 Hz apart.
"""

from __future__ import annotations

import numpy as np

FRAME_S = 0.04
SMOOTHING_HZ = 200.0
WITHIN_DB = 60.0
FRAMES_AT_ONCE = 1024
LEAST_POWER = 1e-12  # of the strongest bin, full scale 1.0: less is digital silence


class LongTermSpectrum:
    """Power by frequency, summed over frames (Welch 1967: Hann, no overlap) and channels."""

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._size = max(2, round(FRAME_S * sample_rate_hz))
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._size) / self._size)
        self._power_K = np.zeros(self._size // 2 + 1)
        self._rest: np.ndarray | None = None

    def add(self, block_SC: np.ndarray) -> None:
        """The next samples ``[S, C]`` of the same recording."""
        audio_SC = block_SC if self._rest is None else np.concatenate([self._rest, block_SC])
        whole = len(audio_SC) // self._size * self._size
        self._rest = audio_SC[whole:]
        for channel_S in audio_SC[:whole].T.astype(np.float64):
            frames_FS = channel_S.reshape(-1, self._size)
            for first in range(0, len(frames_FS), FRAMES_AT_ONCE):
                some_FS = frames_FS[first : first + FRAMES_AT_ONCE]
                spectrum_FK = np.fft.rfft((some_FS - some_FS.mean(axis=1, keepdims=True)) * self._window, axis=1)
                self._power_K += (spectrum_FK.real**2 + spectrum_FK.imag**2).sum(axis=0)

    def bandwidth_hz(self, within_db: float = WITHIN_DB) -> float | None:
        """Highest frequency whose power, smoothed over 200 Hz, is within ``within_db`` of the strongest.

        None under one frame of audio, or where nothing but a constant is heard.
        """
        width = max(1, round(SMOOTHING_HZ * FRAME_S))
        smooth_K = np.convolve(self._power_K, np.ones(width) / width, mode="same")
        if smooth_K.max() <= LEAST_POWER:
            return None
        highest = int(np.flatnonzero(smooth_K >= smooth_K.max() * 10.0 ** (-within_db / 10.0))[-1])
        return float(min(self.sample_rate_hz / 2, highest / FRAME_S))
