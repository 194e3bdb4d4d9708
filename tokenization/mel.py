"""The codec's spectrum: audio to log-mel frames and back, in numpy, so that equal audio gives equal bits.

S audio samples, N spectrum frames (10 ms), M mel bins, K frequency bins.

A window of 25 ms is centred on each hop of 10 ms: 120 zeros before and behind make exactly ``S / 160`` frames of audio
whose length is a multiple of the hop. Magnitudes are scaled so that a full-scale sine has 0.5, log is natural.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.mel import slaney_triangles

HOP_SAMPLES = 160
MEL_RATE_HZ = MODEL_RATE_HZ // HOP_SAMPLES
WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
EDGE_SAMPLES = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
FLOOR = 1e-5  # -100 dB below a full-scale sine's peak: digital silence has a value, room noise lies above it


@lru_cache(maxsize=4)
def mel_filters(num_mels: int) -> np.ndarray:
    """float32 ``[M, K]``: triangles of peak 1 from 0 to 8 kHz, at most 128.

    Centres are even on Slaney's mel scale. On the logarithmic scale of Stevens 128 triangles would be narrower than a bin
    at the low end, and some deaf.
    """
    triangles_MK, _ = slaney_triangles(MODEL_RATE_HZ, FFT_SAMPLES, num_mels)
    return triangles_MK.astype(np.float32)


@lru_cache(maxsize=4)
def _inverse_filters(num_mels: int) -> np.ndarray:
    """float64 ``[K, M]``: magnitudes of the least norm for mels; some are below zero."""
    return np.linalg.pinv(mel_filters(num_mels).astype(np.float64))


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    """Periodic Hann, ``[400]``."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)).astype(np.float32)


def log_mel(audio: Audio, num_mels: int) -> np.ndarray:
    """float32 ``[N, M]`` for 16 kHz audio ``[S]``, S a multiple of 160, ``N = S / 160``."""
    assert len(audio) % HOP_SAMPLES == 0, len(audio)
    if len(audio) == 0:
        return np.zeros((0, num_mels), np.float32)
    magnitude = np.abs(_spectrum(np.pad(audio, EDGE_SAMPLES))) / np.float32(_window().sum())
    return np.log(np.maximum(magnitude @ mel_filters(num_mels).T, np.float32(FLOOR))).astype(np.float32)


def griffin_lim(mel: np.ndarray, rounds: int = 32) -> Audio:
    """float32 ``[160 N]``: audio whose log-mel is near ``[N, M]`` (Griffin and Lim 1984, momentum of Perraudin et al. 2013).

    Phases start from a fixed seed: equal frames give equal audio. It proves what the codes carry; it is no vocoder.
    """
    num_frames, num_mels = mel.shape
    if num_frames == 0:
        return np.zeros(0, np.float32)
    magnitude = np.maximum(np.exp(mel.astype(np.float64)) @ _inverse_filters(num_mels).T, 0.0) * float(_window().sum())
    turns = np.random.default_rng(0).random(magnitude.shape)
    estimate = magnitude * np.exp(2j * np.pi * turns)
    previous = np.zeros_like(estimate)
    for _ in range(rounds):
        projected = _spectrum(_overlap_add(estimate))
        pushed = projected + 0.99 * (projected - previous)
        previous = projected
        estimate = magnitude * pushed / np.maximum(np.abs(pushed), 1e-12)
    audio = _overlap_add(estimate)[EDGE_SAMPLES:-EDGE_SAMPLES]
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def _spectrum(padded: np.ndarray) -> np.ndarray:
    """Complex ``[N, K]`` of padded audio ``[160 N + 240]``."""
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    return np.fft.rfft(frames * _window(), FFT_SAMPLES, axis=1)


def _overlap_add(spectrum: np.ndarray) -> np.ndarray:
    """Padded audio ``[160 N + 240]`` with the least squared error to the spectrum ``[N, K]``."""
    window = _window().astype(np.float64)
    frames = np.fft.irfft(spectrum, FFT_SAMPLES, axis=1)[:, :WINDOW_SAMPLES] * window
    num_frames = len(frames)
    total = np.zeros(num_frames * HOP_SAMPLES + 2 * EDGE_SAMPLES)
    weight = np.zeros_like(total)
    # Frames a window apart do not meet: three interleaved sets of frames are added without a loop over frames.
    apart = -(-WINDOW_SAMPLES // HOP_SAMPLES)
    for first in range(min(apart, num_frames)):
        chosen = frames[first::apart]
        starts = (first + apart * np.arange(len(chosen))) * HOP_SAMPLES
        places = (starts[:, None] + np.arange(WINDOW_SAMPLES)).reshape(-1)
        total[places] += chosen.reshape(-1)
        weight[places] += np.tile(window**2, len(chosen))
    return total / np.maximum(weight, 1e-3)
