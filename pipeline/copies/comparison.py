"""Landmarks of one key, compared with one another by the sketch around them: machine code by numba, since ten million clips
have some 7e10 such pairs. NumPy took 20 ns a pair, this takes about one.

Frames are those of the whole file (``Frames``); N sorted entries, G of one key.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pipeline.copies.landmarks import FAR_WORDS, FRAMES_A_WORD, LOWEST_BITS, MOST_ERRORS, MOST_NEAR_ERRORS, NEAR_WORDS

# A key that many clips share is compared with the next of them in their order only: an advert aired a thousand times
# becomes a chain of copies, and a hum costs no more than a word.
MOST_PARTNERS = 32
REPEATED_FRAMES = 256  # a key that stands again so soon is the same hum of the same clip

# Numbers beside 64-bit words have to be such words themselves: numba makes floats of mixed ones.
_ONE, _TWO, _FOUR, _SIXTEEN, _LAST = (np.uint64(number) for number in (1, 2, 4, FRAMES_A_WORD, 63))
_PAIRS, _NIBBLES = np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_ODDS, _BYTES, _TOP = np.uint64(0x5555555555555555), np.uint64(0x0101010101010101), np.uint64(56)
_MOST_NEAR, _MOST = np.uint64(MOST_NEAR_ERRORS), np.uint64(MOST_ERRORS)
_WORDS = np.array([NEAR_WORDS, *FAR_WORDS])  # next to a landmark, further before it, further behind it


def agreeing_pairs(entries_N: np.ndarray, row_bits: int, sketch: np.ndarray, start: np.ndarray, left_rows: int) -> np.ndarray:
    """Int64 ``[n, 3]``: left clip, right clip, offset (right frame minus left frame) of landmarks whose surroundings agree.

    ``entries_N``: sorted uint64, a key over ``row_bits`` bits of its frame. ``sketch``: uint64 words, ``start``: int64, the
    first frame of each clip. With ``left_rows`` below 0 each landmark is compared with the MOST_PARTNERS before it of
    its key, else each at or behind that frame with the first MOST_PARTNERS before that frame.
    """
    found: np.ndarray = _compiled()(entries_N, np.uint64(row_bits), sketch, start, left_rows)
    return found


@cache
def _compiled() -> Any:
    """The kernel, which lets go of the interpreter's lock; the first call of a process compiles it, in a few seconds."""
    from numba import njit

    popcount: Any = njit(_popcount)
    word: Any = njit(sketch_word)

    @njit
    def errors(sketch: np.ndarray, left: int, right: int, offset: int) -> Any:
        """Bits that differ in two words. Frames quiet in both tell nothing: half of their bits count, as between strangers."""
        one, two = word(sketch, left + offset), word(sketch, right + offset)
        some = one | two
        some |= some >> _ONE
        some |= some >> _TWO  # the lowest bit of a frame is set where any of its four is
        return popcount(one ^ two) + _TWO * (_SIXTEEN - popcount(some & LOWEST_BITS))

    @njit
    def agree(sketch: np.ndarray, left: int, right: int) -> bool:
        """At most MOST_ERRORS of 256 bits differ: those next to both landmarks, and the better of the two sides further out."""
        sums = np.zeros(3, np.uint64)
        for side in range(3):
            for number in range(2):
                sums[side] += errors(sketch, left, right, _WORDS[side, number])
        return sums[0] + min(sums[1], sums[2]) <= _MOST

    @njit
    def clip_at(start: np.ndarray, row: int) -> int:
        return int(np.searchsorted(start, row, side="right")) - 1

    @njit
    def fill(
        entries: np.ndarray,
        row_mask: np.uint64,
        sketch: np.ndarray,
        start: np.ndarray,
        left_rows: int,
        around: np.ndarray,
        rows: np.ndarray,
    ) -> tuple[int, int]:
        """One key's landmarks, without those of a hum, and the words next to them: (how many, how many are of left clips)."""
        size, num_left, previous = 0, 0, np.int64(-REPEATED_FRAMES)
        for entry in entries:
            row: Any = np.int64(entry & row_mask)
            is_again = row - previous < REPEATED_FRAMES and clip_at(start, row) == clip_at(start, previous)
            previous = row
            if not is_again:
                rows[size] = row
                for side in range(2):
                    around[side, size] = word(sketch, row + _WORDS[0, side])
                size += 1
                num_left += row < left_rows
        return size, num_left

    @njit(nogil=True)
    def compare(entries: np.ndarray, row_bits: np.uint64, sketch: np.ndarray, start: np.ndarray, left_rows: int) -> np.ndarray:
        found, num_found = np.empty((1024, 3), np.int64), 0
        rows, around = np.empty(64, np.int64), np.empty((2, 64), np.uint64)
        first = 0
        while first < len(entries):
            last = first + 1
            while last < len(entries) and entries[last] >> row_bits == entries[first] >> row_bits:
                last += 1
            if last - first > len(rows):
                rows, around = np.empty(2 * (last - first), np.int64), np.empty((2, 2 * (last - first)), np.uint64)
            size = num_left = 0
            if last - first > 1:
                size, num_left = fill(entries[first:last], (_ONE << row_bits) - _ONE, sketch, start, left_rows, around, rows)
            before, behind = around
            for later in range(1 if left_rows < 0 else num_left, size):
                low, high = (max(0, later - MOST_PARTNERS), later) if left_rows < 0 else (0, min(num_left, MOST_PARTNERS))
                nearest, own_before, own_behind = _MOST_NEAR + _ONE, before[later], behind[later]
                for earlier in range(low, high):  # without a branch: the processor takes eight at once
                    nearest = min(nearest, popcount(before[earlier] ^ own_before) + popcount(behind[earlier] ^ own_behind))
                for earlier in range(low, high if nearest <= _MOST_NEAR else low):
                    near = popcount(before[earlier] ^ own_before) + popcount(behind[earlier] ^ own_behind)
                    if near <= _MOST_NEAR and agree(sketch, rows[earlier], rows[later]):
                        left, right = clip_at(start, rows[earlier]), clip_at(start, rows[later])
                        if left != right:
                            if num_found == len(found):
                                found = np.concatenate((found, np.empty_like(found)))
                            found[num_found, 0], found[num_found, 1] = left, right
                            found[num_found, 2] = (rows[later] - start[right]) - (rows[earlier] - start[left])
                            num_found += 1
            first = last
        return found[:num_found]

    return compare


def sketch_word(words: np.ndarray, first: int) -> np.uint64:
    """FRAMES_A_WORD frames of a sketch (as uint64, little-endian) from a frame on."""
    at = first >> 4
    shift = np.uint64((first & (FRAMES_A_WORD - 1)) << 2)
    # In two steps: a shift by 64 is none.
    return (words[at] >> shift) | ((words[at + 1] << _ONE) << (_LAST - shift))


def _popcount(word: np.uint64) -> np.uint64:
    """Bits that are set; LLVM knows these lines as the processor's one instruction."""
    word = word - ((word >> _ONE) & _ODDS)
    word = (word & _PAIRS) + ((word >> _TWO) & _PAIRS)
    word = (word + (word >> _FOUR)) & _NIBBLES
    return (word * _BYTES) >> _TOP
