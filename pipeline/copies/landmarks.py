"""What a join of millions of fingerprints is made by: landmarks, few and sure, and a sketch that tells strangers apart.

A *landmark* is the pair of a frame and the one KEY_GAP later, both steady: the 20 bits of the lower bands, which codecs
and noise spare, hardly change from one frame to the next there. Two copies share a landmark where these 40 bits
are unchanged. Strangers share some too, so a *sketch* of four bits a frame, small enough for memory, is compared around it.
docs/decisions/0018 has what was measured.

Shape legend: F frames of a fingerprint, N landmarks.
"""

from __future__ import annotations

import numpy as np

from annotators.acoustic_fingerprint import QUIET

LOW_BANDS = np.uint32(0xFFFFF000)  # of the bits of a frame: 1.4 times fewer errors than in all 32
LOW_BAND_BITS = 20
KEY_GAP = 4  # frames: 44 % of the bits have changed by then, which is as good as chance
KEY_BITS = 42  # of the hash that stands for the 40 bits
MOST_CHANGES = 14  # bits that change around the two frames together: the steadier half of the frames
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Knuth's multiplicative hash

SKETCH_SHIFT = np.uint32(20)  # the four bits with the fewest errors: 0.06 to 0.07 where all have 0.11
FRAMES_A_WORD = 16  # of a sketch, in a uint64
# Around a landmark: words before its first frame and behind its second one. Those next to it are compared first.
NEAR_WORDS = (-FRAMES_A_WORD, KEY_GAP + 1)
FAR_WORDS = ((-3 * FRAMES_A_WORD, -2 * FRAMES_A_WORD), (KEY_GAP + 1 + FRAMES_A_WORD, KEY_GAP + 1 + 2 * FRAMES_A_WORD))
LOWEST_BITS = np.uint64(0x1111111111111111)
MOST_NEAR_ERRORS = 28  # of 128 bits
MOST_ERRORS = 66  # of 256 bits: those, and the better of the two sides further out


def landmarks(frames_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int64 ``[N]`` frames, uint64 ``[N]`` keys of KEY_BITS) of fingerprints that stand one behind the other.

    Between two fingerprints at least KEY_GAP + 1 frames are QUIET, so that no landmark has a part in both.
    """
    low_F = frames_F & LOW_BANDS
    changes_F = np.zeros(len(frames_F) + 1, np.uint8)
    np.bitwise_count(low_F[1:] ^ low_F[:-1], out=changes_F[1:-1])
    around_F = changes_F[1:] + changes_F[:-1]
    is_heard_F = frames_F != QUIET
    is_landmark = around_F[:-KEY_GAP] + around_F[KEY_GAP:] <= MOST_CHANGES
    is_landmark &= is_heard_F[:-KEY_GAP] & is_heard_F[KEY_GAP:]
    at_N = np.flatnonzero(is_landmark)
    bits_N = (low_F[at_N].astype(np.uint64) << np.uint64(LOW_BAND_BITS - (32 - LOW_BAND_BITS))) | (
        low_F[at_N + KEY_GAP] >> np.uint32(32 - LOW_BAND_BITS)
    )
    return at_N, (bits_N * MIXER) >> np.uint64(64 - KEY_BITS)


def sketch(frames_F: np.ndarray) -> np.ndarray:
    """Uint8 ``[F / 2]``: four bits a frame, the even frame in the low half. F is even."""
    nibbles_F = ((frames_F >> SKETCH_SHIFT) & np.uint32(15)).astype(np.uint8)
    return nibbles_F[0::2] | (nibbles_F[1::2] << np.uint8(4))
