"""Acoustic fingerprints: 32 bits every 24 ms that survive encoding, resampling, gain, trimming and a telephone line.

The method is that of Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: long windows, 33
bands from 300 to 2000 Hz that are even in log frequency, and for each pair of neighbouring bands one bit, the sign of
the change in time of their energy difference. Two things differ, for speech: the hop is 24 ms instead of 11.6 (half the bytes,
with the same separation as measured; docs/decisions/0016), and a frame that is far quieter than its clip is marked as
quiet and not compared, since what is left in a pause is the encoder's noise.

Shape legend: S samples, F frames of a fingerprint, K frequency bins, B bands.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import soxr

from manifests.contracts import Audio

RATE_HZ = 5000
WINDOW_SAMPLES = 2048  # 410 ms
HOP_SAMPLES = 120
HOP_S = HOP_SAMPLES / RATE_HZ
NUM_BITS = 32
LOWEST_HZ, HIGHEST_HZ = 300.0, 2000.0  # what a telephone line and every codec keep
QUIET_DB = 30.0  # below the clip's loud frames (95th percentile)
SILENT_POWER = 1e-12  # mean power of a frame in the bands, -120 dB re full scale
QUIET = 0  # the value of a frame that is not compared
FRAMES_AT_ONCE = 1024  # bounds memory on long audio

# A stretch goes on while its bit error rate stays below this: transformed copies lie under 0.25, strangers at 0.5.
STRETCH_ERROR_RATE = 0.35
# What a match must reach, as benchmarks/quality/content.py fits it; docs/quality.md says what it finds and misses.
LEAST_EVIDENCE = 5.3
NUM_OFFSETS = 4
MOST_REPEATS = 64  # a value that stands so often in a fingerprint is a hum: it tells no place

_FLIPS = np.concatenate([[0], 1 << np.arange(NUM_BITS)]).astype(np.uint32)  # the value itself, and one bit wrong


class Stretch(NamedTuple):
    """Where two fingerprints agree: frames ``[left, left + num_frames)`` of one and ``[right, ...)`` of the other."""

    left_frame: int
    right_frame: int
    num_frames: int
    num_compared: int  # frames that are quiet in neither
    bit_error_rate: float  # over the compared frames; 0.5 between strangers

    @property
    def evidence(self) -> float:
        return evidence(self.bit_error_rate, self.num_compared)


def acoustic_fingerprint(audio_S: Audio, sample_rate_hz: int) -> np.ndarray:
    """Uint32 ``[F]``, one value every HOP_S; QUIET for frames that are not compared. Empty under 0.44 s.

    Frame ``f`` tells the change between the windows that start at ``f * HOP_S`` and ``(f + 1) * HOP_S``. The highest bit
    belongs to the two lowest bands. Bits do not depend on the level; only audio that differs by rounding can move one.
    """
    heard_S = audio_S if sample_rate_hz == RATE_HZ else soxr.resample(audio_S, sample_rate_hz, RATE_HZ, quality="HQ")
    if len(heard_S) < WINDOW_SAMPLES + HOP_SAMPLES:
        return np.zeros(0, np.uint32)
    energy_FB = _band_energies(heard_S)
    slope_FB = energy_FB[:, :-1] - energy_FB[:, 1:]
    bits_FB = slope_FB[1:] > slope_FB[:-1]
    values_F = np.packbits(bits_FB, axis=1).view(">u4")[:, 0].astype(np.uint32)
    power_F = energy_FB[1:].sum(axis=1)
    loud = float(np.percentile(power_F, 95.0))
    # A loud frame whose bits are all 0 gets the nearest value that is not QUIET.
    return np.where(power_F < max(SILENT_POWER, loud * 10.0 ** (-QUIET_DB / 10.0)), QUIET, np.maximum(values_F, 1)).astype(
        np.uint32
    )


def num_audible(fingerprint_F: np.ndarray) -> int:
    """Frames that can be compared."""
    return int(np.count_nonzero(fingerprint_F != QUIET))


def evidence(bit_error_rate: float, num_compared: int) -> float:
    """How far from chance, in units that grow with the square root of the length, as the spread of a mean shrinks."""
    return float((1.0 - 2.0 * bit_error_rate) * np.sqrt(num_compared))


def is_match(bit_error_rate: float, num_compared: int) -> bool:
    """Whether a stretch is the same recording: an error rate under 0.25 over 2.5 s, under 0.38 over 10 s.

    Were the 32 bits independent, the evidence of strangers at one offset would have a standard deviation of 1 / sqrt(32) =
    0.18. Neighbouring bits and frames agree, and it is 0.37 as measured on speech; the best of all offsets and stretches came
    to 3.7 in 697,000 pairs (docs/decisions/0016, docs/quality.md).
    """
    return evidence(bit_error_rate, num_compared) >= LEAST_EVIDENCE


def best_match(left_F: np.ndarray, right_F: np.ndarray) -> Stretch | None:
    """The stretch with the most evidence at the offsets that shared values propose; None where no value is shared.

    It finds a whole clip, a trimmed one, and a jingle inside two long recordings. Ask ``is_match`` of what it returns.
    """
    found = [best_stretch(left_F, right_F, int(offset)) for offset in shared_offsets(left_F, right_F)]
    return max((stretch for stretch in found if stretch), key=lambda stretch: stretch.evidence, default=None)


def shared_offsets(left_F: np.ndarray, right_F: np.ndarray) -> np.ndarray:
    """Int64 ``[<= NUM_OFFSETS]``: right frame minus left frame where most values are shared, one wrong bit forgiven."""
    left, right = np.flatnonzero(left_F != QUIET), np.flatnonzero(right_F != QUIET)
    right = right[np.argsort(right_F[right], kind="stable")]
    sorted_values = right_F[right]
    asked = (left_F[left, None] ^ _FLIPS).ravel()
    first = np.searchsorted(sorted_values, asked, side="left")
    counts = np.searchsorted(sorted_values, asked, side="right") - first
    hits = np.flatnonzero((counts > 0) & (counts <= MOST_REPEATS))
    counts = counts[hits]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = right[np.repeat(first[hits], counts) + within] - np.repeat(left[hits // len(_FLIPS)], counts)
    offsets, votes = np.unique(offsets, return_counts=True)
    return offsets[np.argsort(-votes, kind="stable")[:NUM_OFFSETS]]


def best_stretch(left_F: np.ndarray, right_F: np.ndarray, offset: int) -> Stretch | None:
    """The stretch at one offset (right frame minus left frame) whose error rate lies furthest below STRETCH_ERROR_RATE in sum.

    That is the subarray of largest sum (Bentley 1984). None where no frame agrees well enough.
    """
    left, right = max(0, -offset), max(0, offset)
    length = min(len(left_F) - left, len(right_F) - right)
    if length <= 0:
        return None
    left_values, right_values = left_F[left : left + length], right_F[right : right + length]
    compared = (left_values != QUIET) & (right_values != QUIET)
    errors = np.bitwise_count(left_values ^ right_values) / NUM_BITS
    sums = np.concatenate([[0.0], np.cumsum(np.where(compared, STRETCH_ERROR_RATE - errors, 0.0))])
    stop = int(np.argmax(sums - np.minimum.accumulate(sums)))
    start = stop - int(np.argmin(sums[stop::-1]))  # the last minimum: quiet frames in front are no part of it
    kept = compared[start:stop]
    if not kept.any():
        return None
    return Stretch(left + start, right + start, stop - start, int(kept.sum()), float(errors[start:stop][kept].mean()))


def _band_energies(heard_S: np.ndarray) -> np.ndarray:
    """Float64 ``[F, 33]``: mean power of the windows in the bands, 1.0 = full scale."""
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
    frames = np.lib.stride_tricks.sliding_window_view(heard_S, WINDOW_SAMPLES)[::HOP_SAMPLES]
    first, weights_KB = _bands()
    blocks = []
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        spectrum_FK = np.fft.rfft(frames[start : start + FRAMES_AT_ONCE] * window, axis=1)[:, first : first + len(weights_KB)]
        blocks.append((spectrum_FK.real**2 + spectrum_FK.imag**2) @ weights_KB)
    return np.concatenate(blocks) * (2.0 / (WINDOW_SAMPLES * np.sum(window**2)))


@functools.lru_cache(maxsize=1)
def _bands() -> tuple[int, np.ndarray]:
    """First bin of the spectrum that counts, and float64 ``[K, 33]``: the share of each bin that lies in each band."""
    edges = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** (np.arange(NUM_BITS + 2) / (NUM_BITS + 1)) * WINDOW_SAMPLES / RATE_HZ
    first, last = int(edges[0]), int(edges[-1]) + 1
    bins_K = np.arange(first, last + 1)[:, None]
    return first, np.maximum(0.0, np.minimum(bins_K + 0.5, edges[1:]) - np.maximum(bins_K - 0.5, edges[:-1]))
