"""Syllable nuclei from the intensity contour: de Jong and Wempe (2009), simplified.

"Praat script to detect syllable nuclei and measure speech rate automatically", Behavior Research Methods 41(2):
peaks of intensity above a level, with a dip of at least 2 dB on both sides, that are voiced. Ours smooths RMS energy with
a 64 ms Hann window instead of Praat's Kaiser, which moves no peak by more than a frame.

Shape legend: S samples, F frames of 10 ms.
"""

from __future__ import annotations

import numpy as np

from annotators.pitch import HOP_SAMPLES as PITCH_HOP_SAMPLES
from manifests.contracts import MODEL_RATE_HZ, Audio

HOP_SAMPLES = MODEL_RATE_HZ // 100
WINDOW_SAMPLES = round(0.064 * MODEL_RATE_HZ)
BELOW_LOUD_DB = 25.0  # a nucleus is at most this far below the 99th percentile
MIN_DIP_DB = 2.0
MIN_PAUSE_FRAMES = 30  # a silence of 0.3 s is a pause, which is not counted as speaking time


def intensity_db(audio_S: Audio) -> np.ndarray:
    """Float64 ``[F]``: smoothed level every 10 ms, centred on sample ``f * 160``; at least -120."""
    window = np.hanning(WINDOW_SAMPLES)
    power_S = audio_S.astype(np.float64) ** 2
    padded = np.pad(power_S, WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    return 10.0 * np.log10(np.maximum(frames @ (window / window.sum()), 1e-12))


def syllable_rate_hz(audio_S: Audio, voiced_F: np.ndarray) -> float | None:
    """Nuclei a second of speaking time (pauses of 0.3 s and more left out) of 16 kHz audio; None without speaking time.

    ``voiced_F`` is bool, one for each value of ``pitch_hz``.
    """
    level_F = intensity_db(audio_S)
    threshold = float(np.percentile(level_F, 99)) - BELOW_LOUD_DB
    speaking_s = _speaking_frames(level_F >= threshold) * HOP_SAMPLES / MODEL_RATE_HZ
    if float(level_F.max()) <= -100.0 or speaking_s <= 0:
        return None
    peaks = np.array(nuclei(level_F, threshold), np.int64)
    pitch_frames = np.rint(peaks * HOP_SAMPLES / PITCH_HOP_SAMPLES).astype(np.int64)
    return int(voiced_F[pitch_frames[pitch_frames < len(voiced_F)]].sum()) / speaking_s


def nuclei(level_F: np.ndarray, threshold: float) -> list[int]:
    """Frames of the peaks above the threshold; between two of them the level dips by at least 2 dB below the lower one."""
    found: list[int] = []
    top = low = 0  # frame of the highest level since the last dip, and of the lowest one since that peak
    rising = True
    for f in range(1, len(level_F)):
        if rising:
            if level_F[f] > level_F[top]:
                top = f
            elif level_F[top] - level_F[f] >= MIN_DIP_DB:
                if level_F[top] >= threshold:
                    found.append(top)
                rising, low = False, f
        elif level_F[f] < level_F[low]:
            low = f
        elif level_F[f] - level_F[low] >= MIN_DIP_DB:
            rising, top = True, f
    return found


def _speaking_frames(loud_F: np.ndarray) -> int:
    """Frames from the first loud one to the last, less the quiet runs of 0.3 s and more between them."""
    loud = np.flatnonzero(loud_F)
    if not len(loud):
        return 0
    gaps = np.diff(loud) - 1
    return int(loud[-1] - loud[0] + 1 - gaps[gaps >= MIN_PAUSE_FRAMES].sum())
