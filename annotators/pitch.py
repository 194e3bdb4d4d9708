"""Fundamental frequency by autocorrelation with a path search, after Boersma (1993), vectorised over frames.

Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
sound", IFA Proceedings 17. The costs are the paper's (and Praat's) defaults for a 10 ms hop.

Shape legend: S samples, F frames, L lags, N candidates of a frame (the first one is "unvoiced").
"""

from __future__ import annotations

import numpy as np

from manifests.contracts import MODEL_RATE_HZ, Audio

HOP_SAMPLES = MODEL_RATE_HZ // 100
FLOOR_HZ, CEILING_HZ = 60.0, 500.0
WINDOW_SAMPLES = int(3 * MODEL_RATE_HZ / FLOOR_HZ)  # three periods of the floor
NUM_CANDIDATES = 6
VOICING_THRESHOLD = 0.45
SILENCE_THRESHOLD = 0.03
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICED_UNVOICED_COST = 0.14
FRAMES_AT_ONCE = 1024


def pitch_hz(audio_S: Audio) -> np.ndarray:
    """Float64 ``[F]`` of 16 kHz audio, one value each 10 ms; NaN where unvoiced. No frame for less than one window (50 ms)."""
    if len(audio_S) < WINDOW_SAMPLES:
        return np.zeros(0)
    x_S = audio_S.astype(np.float64) - float(np.mean(audio_S))
    peak = float(np.abs(x_S).max())
    frames = np.lib.stride_tricks.sliding_window_view(x_S, WINDOW_SAMPLES)[::HOP_SAMPLES]
    if peak <= 1e-6:
        return np.full(len(frames), np.nan)
    blocks = [_candidates(frames[first : first + FRAMES_AT_ONCE], peak) for first in range(0, len(frames), FRAMES_AT_ONCE)]
    hz_FN, strength_FN = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    chosen_F = _best_path(hz_FN, strength_FN)
    hz_F = hz_FN[np.arange(len(frames)), chosen_F]
    return np.where(hz_F > 0, hz_F, np.nan)


def _candidates(frames_FS: np.ndarray, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """(frequency ``[F, N]``, 0 = unvoiced or none; strength ``[F, N]``, -inf = none)."""
    centred = frames_FS - frames_FS.mean(axis=1, keepdims=True)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW_SAMPLES) + 0.5) / WINDOW_SAMPLES)
    r_FL = _autocorrelation(centred * window) / _autocorrelation(window[None])
    low, high = int(MODEL_RATE_HZ / CEILING_HZ), int(MODEL_RATE_HZ / FLOOR_HZ)
    left, middle, right = r_FL[:, low - 1 : high], r_FL[:, low : high + 1], r_FL[:, low + 1 : high + 2]
    # Parabola through each local maximum: the lag between samples and the height there.
    is_peak = (middle > left) & (middle >= right) & (middle > 0.5 * VOICING_THRESHOLD)
    bend = np.where(is_peak, left - 2 * middle + right, -1.0)
    shift = np.where(is_peak, 0.5 * (left - right) / bend, 0.0)
    height = np.minimum(middle - 0.25 * (left - right) * shift, 1.0)
    hz = MODEL_RATE_HZ / (np.arange(low, high + 1) + shift)
    strength = np.where(is_peak, height - OCTAVE_COST * np.log2(CEILING_HZ / hz), -np.inf)
    best = np.argpartition(-strength, NUM_CANDIDATES - 1, axis=1)[:, : NUM_CANDIDATES - 1]
    best.sort(axis=1)  # order by lag: argpartition leaves it open
    strength_FN, hz_FN = np.take_along_axis(strength, best, 1), np.take_along_axis(hz, best, 1)
    loudness_F = np.abs(centred).max(axis=1) / peak
    unvoiced_F = VOICING_THRESHOLD + np.maximum(0.0, 2.0 - loudness_F * (1.0 + VOICING_THRESHOLD) / SILENCE_THRESHOLD)
    return (
        np.concatenate([np.zeros((len(hz_FN), 1)), np.where(np.isfinite(strength_FN), hz_FN, 0.0)], axis=1),
        np.concatenate([unvoiced_F[:, None], strength_FN], axis=1),
    )


def _autocorrelation(x_FS: np.ndarray) -> np.ndarray:
    """Normalised autocorrelation ``[F, L]`` up to the lag of the floor and one more; 0 for a silent frame."""
    size = 1 << int(np.ceil(np.log2(1.5 * WINDOW_SAMPLES)))
    lags = int(MODEL_RATE_HZ / FLOOR_HZ) + 2
    r_FL = np.fft.irfft(np.abs(np.fft.rfft(x_FS, size, axis=1)) ** 2, size, axis=1)[:, :lags]
    return r_FL / np.maximum(r_FL[:, :1], 1e-12)


def _best_path(hz_FN: np.ndarray, strength_FN: np.ndarray) -> np.ndarray:
    """Index of the chosen candidate of each frame: greatest strength less the costs of jumps (Viterbi)."""
    num_frames, num_candidates = hz_FN.shape
    score_N = strength_FN[0]
    came_from = np.zeros((num_frames, num_candidates), np.int64)
    voiced_FN = hz_FN > 0
    octave_FN = np.log2(np.where(voiced_FN, hz_FN, 1.0))
    columns = np.arange(num_candidates)
    for f in range(1, num_frames):
        both = voiced_FN[f - 1][:, None] & voiced_FN[f][None, :]
        changed = voiced_FN[f - 1][:, None] != voiced_FN[f][None, :]
        jump = np.abs(octave_FN[f - 1][:, None] - octave_FN[f][None, :])
        total = score_N[:, None] - OCTAVE_JUMP_COST * jump * both - VOICED_UNVOICED_COST * changed
        came_from[f] = total.argmax(axis=0)
        score_N = total[came_from[f], columns] + strength_FN[f]
    path = np.zeros(num_frames, np.int64)
    path[-1] = int(score_N.argmax())
    for f in range(num_frames - 1, 0, -1):
        path[f - 1] = came_from[f, path[f]]
    return path
