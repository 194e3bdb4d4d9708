"""Clarity of a room from its speech alone: C50, the energy of the first 50 ms against all that comes later, in dB.

Speech stops faster than a room does: the steepest decays of energy in narrow bands say how fast the room lets sound die
(Wen, Habets and Naylor, "Blind estimation of reverberation time based on the distribution of signal decay rates", ICASSP
2008). Ours takes the steepest tenth of the falling slopes over 72 ms and maps it to C50 by a line, fitted on read speech
convolved with made rooms; ``benchmarks/quality/signal.py`` measures the error on speakers and rooms apart from those.

Shape legend: S samples, F frames of 8 ms, B bands, W frames of a slope.
"""

from __future__ import annotations

import numpy as np

WINDOW_S, HOP_S = 0.032, 0.008
BAND_EDGES_HZ = np.geomspace(250.0, 3800.0, 13)
SLOPE_FRAMES = 9
FLOOR_PERCENTILE, ABOVE_FLOOR_DB = 10.0, 6.0  # a slope that ends lower is noise
STEEPEST_PERCENT = 10.0
MIN_SLOPES = 50
# C50 = DB_A_LOG * ln(decay in dB/s) + AT_ONE: 63 speakers of speechocean762, each in five made rooms (0.2 to 1.2 s) and dry.
DB_A_LOG, AT_ONE = 24.769, -117.971
LOWEST_DB, HIGHEST_DB = -5.0, 25.0
FRAMES_AT_ONCE = 4096


def c50_db(x_S: np.ndarray, sample_rate_hz: int) -> float | None:
    """C50 in dB, -5 to 25 (25: dry), of speech ``[S]`` of at least 8 kHz; None with too few decays to tell."""
    decay = steepest_decay_db_s(x_S, sample_rate_hz)
    return None if decay is None else float(np.clip(DB_A_LOG * np.log(decay) + AT_ONE, LOWEST_DB, HIGHEST_DB))


def steepest_decay_db_s(x_S: np.ndarray, sample_rate_hz: int) -> float | None:
    """How fast energy falls in the steepest tenth of the falling slopes, over all bands; None with fewer than 50 of them."""
    level_FB = _band_levels_db(x_S, sample_rate_hz)
    if len(level_FB) < SLOPE_FRAMES:
        return None
    time_W = (np.arange(SLOPE_FRAMES) - (SLOPE_FRAMES - 1) / 2) * HOP_S
    slope_FB = np.lib.stride_tricks.sliding_window_view(level_FB, SLOPE_FRAMES, axis=0) @ (time_W / (time_W @ time_W))
    floor_B = np.percentile(level_FB, FLOOR_PERCENTILE, axis=0) + ABOVE_FLOOR_DB
    falling = slope_FB[(slope_FB < 0) & (level_FB[SLOPE_FRAMES - 1 :] > floor_B)]
    return float(-np.percentile(falling, STEEPEST_PERCENT)) if len(falling) >= MIN_SLOPES else None


def _band_levels_db(x_S: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Float64 ``[F, B]``: level in twelve bands from 250 Hz to 3.8 kHz, every 8 ms."""
    size, hop = round(WINDOW_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    edges = np.rint(BAND_EDGES_HZ * WINDOW_S).astype(int)
    if len(x_S) < size:
        return np.zeros((0, len(edges) - 1))
    frames_FS = np.lib.stride_tricks.sliding_window_view(x_S, size)[::hop]
    window = np.hanning(size)
    blocks = []
    for first in range(0, len(frames_FS), FRAMES_AT_ONCE):
        spectrum_FK = np.fft.rfft(frames_FS[first : first + FRAMES_AT_ONCE] * window, axis=1)
        power_FK = spectrum_FK.real**2 + spectrum_FK.imag**2
        blocks.append(np.add.reduceat(power_FK[:, : edges[-1]], edges[:-1], axis=1))
    return 10.0 * np.log10(np.maximum(np.concatenate(blocks), 1e-12))
