"""Fundamental frequency by SwiftF0, a small network inside the swift-f0 wheel (Nieradzik 2025, arXiv 2508.18440).

On made voices it has no octave errors down to 0 dB SNR, where an autocorrelation method loses every eighth frame
(docs/decisions/0014-pitch-and-shared-windows.md). The package's graph computes three spectra by matrix products and runs
over half a minute at once. Here they are FFTs, and the network hears blocks that stay in the cache: the package's own
pitches, sooner.

Shape legend: S samples, F frames of 16 ms, W samples of a window, K frequency bins.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from annotators.onnx_session import cut_graph, open_session
from annotators.weights import packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio

WEIGHTS = ("swift_f0", "model.onnx")
HOP_SAMPLES = 256
FLOOR_HZ, CEILING_HZ = 60.0, 600.0
VOICED_CONFIDENCE = 0.5  # what the network's confidence is calibrated for
MIN_SAMPLES = MODEL_RATE_HZ // 20  # three periods of the floor
# The network says anything of digital silence. The package calls frames that peak below 0.001 unvoiced, and so do we:
# quiet recordings are brought to this peak first.
PEAK, SILENT_PEAK = 0.5, 1e-3
MAGNITUDES = {512: "v339", 1024: "v120", 2048: "v238"}  # samples of a window -> tensor of the graph that holds its spectrum
REACH = 7  # frames that the convolutions see beyond a frame, to each side
# With more the cache does not hold them: long clips cost a third more, spectra three times as much.
FRAMES_AT_ONCE, SPECTRA_AT_ONCE = 320, 64


@functools.cache
def load_network() -> Any:
    """A session of the graph behind its spectra. Raises ModelUnavailable when its package, onnx or onnxruntime is missing."""
    spectra: dict[str, list[int | str]] = {name: [1, "frames", size // 2 + 1] for size, name in MAGNITUDES.items()}
    answers: dict[str, list[int | str]] = {name: [1, "frames"] for name in ("pitch", "confidence")}
    return open_session(cut_graph(packaged_path(*WEIGHTS), {**spectra, "fmin": [], "fmax": []}, answers))


def pitch_hz(audio_S: Audio) -> np.ndarray:
    """Float64 ``[F]`` of 16 kHz audio; frame ``f`` is centred on sample ``256 f``; NaN where unvoiced. Empty under 50 ms."""
    if len(audio_S) < MIN_SAMPLES:
        return np.zeros(0)
    audio_S = audio_S - audio_S.mean(dtype=np.float64).astype(np.float32)
    peak, num_frames = float(np.abs(audio_S).max()), len(audio_S) // HOP_SAMPLES
    if peak <= 1e-6:
        return np.full(num_frames, np.nan)
    audio_S *= np.float32(PEAK / peak)
    padded_S = np.pad(audio_S, max(MAGNITUDES) // 2)
    edges = np.linspace(0, num_frames, -(-num_frames // FRAMES_AT_ONCE) + 1).astype(int)
    blocks = [_block(padded_S, first, end, num_frames) for first, end in itertools.pairwise(edges)]
    found_F, confidence_F = (np.concatenate(part) for part in zip(*blocks, strict=True))
    loud_F = np.abs(audio_S[: num_frames * HOP_SAMPLES].reshape(num_frames, HOP_SAMPLES)).max(axis=1) >= SILENT_PEAK
    return np.where(loud_F & (confidence_F >= VOICED_CONFIDENCE), found_F, np.nan)


def _block(padded_S: Audio, first: int, end: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitch in Hz and confidence, float64 ``[end - first]``, as if the network had heard all frames at once."""
    low, high = max(0, first - REACH), min(num_frames, end + REACH)
    spectra = {name: _magnitudes(padded_S, size, low, high)[None] for size, name in MAGNITUDES.items()}
    limits = {"fmin": np.array(FLOOR_HZ, np.float32), "fmax": np.array(CEILING_HZ, np.float32)}
    found_F, confidence_F = (
        part[0, first - low : end - low] for part in load_network().run(["pitch", "confidence"], spectra | limits)
    )
    return found_F.astype(np.float64), confidence_F.astype(np.float64)


def _magnitudes(padded_S: Audio, size: int, low: int, high: int) -> np.ndarray:
    """Float32 ``[F, K]``: spectra of the frames ``[low, high)``, each through a Hann window of ``size`` around its centre."""
    import scipy.fft  # on float32 rows four times as fast as NumPy's

    start = max(MAGNITUDES) // 2 - size // 2 + low * HOP_SAMPLES
    heard_S = padded_S[start : start + (high - low - 1) * HOP_SAMPLES + size]
    windows_FW = np.lib.stride_tricks.sliding_window_view(heard_S, size)[::HOP_SAMPLES]
    found_FK = np.empty((high - low, size // 2 + 1), np.float32)
    for some in (slice(first, first + SPECTRA_AT_ONCE) for first in range(0, high - low, SPECTRA_AT_ONCE)):
        np.abs(scipy.fft.rfft(windows_FW[some] * _hann(size), axis=1), out=found_FK[some])
    return found_FK


@functools.cache
def _hann(size: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
