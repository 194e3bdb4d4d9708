"""The join of acoustic fingerprints: all pairs of clips that share a stretch of audio, among millions.

1. *Index*: block by block, the landmarks of all clips (``landmarks``) go to disk, sorted by key.
2. *Candidates*: a range of keys at a time, from all blocks, is sorted; landmarks of one key are compared by the sketch
   around them (``comparison``). What remains is (left, right, offset) with votes.
3. *Verification*: ``best_stretch`` on the whole fingerprints at the offsets that have most votes; ``is_match`` decides.

Memory holds a range of keys a thread and the sketch (2 bytes for 4 frames of each clip); the rest is on disk, and the index never
takes more than INDEX_BYTES of it, since large joins go over the keys in several rounds. Cost grows with the number of clips
as long as MOST_PARTNERS bounds what one landmark is compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import NUM_OFFSETS, Stretch, best_stretch, is_match
from manifests.console import Progress
from pipeline.copies.comparison import agreeing_pairs
from pipeline.copies.frames import BLOCK_BITS, Frames
from pipeline.copies.landmarks import KEY_BITS, landmarks
from pipeline.copies.tasks import run_tasks

INDEX_BYTES = 12_000_000_000
ENTRY_BYTES = 8
EXPECTED_SHARE = 0.6  # of the frames that are landmarks: a guess on the high side
RANGE_ENTRIES = 1 << 23  # that a thread sorts at once; 16 bytes of memory each
PAIRS_A_TASK = 4096
SAME_PLACE = 2  # frames: stretches at such offsets are one, seen twice

STRETCHES = pa.schema(
    [
        pa.field("left", pa.int64()),
        pa.field("right", pa.int64()),
        pa.field("left_frame", pa.int64()),
        pa.field("right_frame", pa.int64()),
        pa.field("num_frames", pa.int64()),
        pa.field("num_compared", pa.int64()),
        pa.field("bit_error_rate", pa.float64()),
    ]
)


class _Round(NamedTuple):
    """Ranges ``[first, last)`` of the keys, of ``num_ranges`` that all keys are cut into."""

    first: int
    last: int
    num_ranges: int

    @property
    def edges(self) -> np.ndarray:
        """Uint64 ``[last - first + 1]``: the keys that the ranges begin with."""
        return np.array([-(-(number << KEY_BITS) // self.num_ranges) for number in range(self.first, self.last + 1)], np.uint64)


@dataclass(frozen=True)
class _IndexTask:
    """A block's landmarks with keys of a round, to be written to ``path``."""

    frames: Frames
    first: int
    last: int
    round: _Round
    path: str


@dataclass(frozen=True)
class _RangeTask:
    """A range of keys: where its landmarks are in the files of the blocks."""

    frames: Frames
    low_key: int
    parts: Sequence[tuple[str, int, int, int]]  # path, first entry, last entry, first frame of the block
    key_bits_dropped: int
    num_left: int | None


@dataclass(frozen=True)
class _VerifyTask:
    """Candidates of some pairs, sorted by (left, right) and falling votes."""

    frames: Frames
    candidates: np.ndarray  # int64 [n, 3]


def find_stretches(
    frames: Frames,
    bars: Progress,
    *,
    num_left: int | None = None,
    scheduler: str | None = None,
    index_bytes: int = INDEX_BYTES,
    range_entries: int = RANGE_ENTRIES,
) -> pa.Table:
    """STRETCHES rows, sorted: every stretch of audio that two clips share, ``left < right``.

    With ``num_left``, only pairs of one of the first ``num_left`` clips and one of the others. A pair can share several
    stretches. Temporary files lie in the folder of the frames and are removed. Raises as ``run_tasks``.
    """
    blocks = list(frames.blocks())
    expected = int(frames.total * EXPECTED_SHARE) + 1
    num_rounds = -(-expected * ENTRY_BYTES // index_bytes)
    a_round = -(-expected // (num_rounds * range_entries))
    index_bar = bars.task("copies: landmarks", num_rounds * len(blocks), "blocks")
    range_bar = bars.task("copies: candidates", num_rounds * a_round, "ranges")
    found = [np.zeros((0, 3), np.int64)]
    for number in range(num_rounds):
        keys = _Round(number * a_round, (number + 1) * a_round, num_rounds * a_round)
        tasks = [
            _IndexTask(frames, first, last, keys, os.path.join(frames.folder, f"index-{block:06d}"))
            for block, (first, last) in enumerate(blocks)
        ]
        try:
            edges = run_tasks(_write_index, tasks, index_bar, scheduler)
            found += run_tasks(_candidates, _range_tasks(tasks, edges, num_left), range_bar, scheduler)
        finally:
            for task in tasks:
                if os.path.exists(task.path):
                    os.unlink(task.path)
    candidates = most_voted(np.concatenate(found))
    verify = [_VerifyTask(frames, part) for part in _by_pairs(candidates)]
    rows = run_tasks(_verified, verify, bars.task("copies: verify", len(verify), "tasks"), scheduler)
    return pa.concat_tables([STRETCHES.empty_table(), *rows])


def _write_index(task: _IndexTask) -> np.ndarray:
    """Entries (key, frame of the block), sorted, into the file; returns int64 ``[ranges + 1]``, where each range begins."""
    at, keys = landmarks(task.frames.read(task.first, task.last))
    edges = task.round.edges
    chosen = (keys >= edges[0]) & (keys < edges[-1])
    entries = (keys[chosen] << np.uint64(BLOCK_BITS)) | at[chosen].astype(np.uint64)
    entries.sort()
    entries.tofile(task.path)
    return np.searchsorted(entries >> np.uint64(BLOCK_BITS), edges)


def _range_tasks(blocks: Sequence[_IndexTask], edges: Sequence[np.ndarray], num_left: int | None) -> list[_RangeTask]:
    if not blocks:
        return []
    frames, keys = blocks[0].frames, blocks[0].round
    row_bits = frames.total.bit_length()
    range_bits = (-(-(1 << KEY_BITS) // keys.num_ranges)).bit_length()
    dropped = max(0, range_bits + row_bits - 64)
    return [
        _RangeTask(
            frames,
            int(low),
            [
                (block.path, int(edge[number]), int(edge[number + 1]), block.first)
                for block, edge in zip(blocks, edges, strict=True)
            ],
            dropped,
            num_left,
        )
        for number, low in enumerate(keys.edges[:-1])
    ]


def _candidates(task: _RangeTask) -> np.ndarray:
    """Int64 ``[n, 3]``: left clip, right clip, offset (right frame minus left frame); of landmarks whose surroundings agree."""
    frames = task.frames
    row_bits = np.uint64(frames.total.bit_length())
    entries = np.concatenate([_entries(*part, task, row_bits) for part in task.parts])
    entries.sort()
    left_rows = -1
    if task.num_left is not None:
        left_rows = int(frames.start[task.num_left]) if task.num_left < len(frames) else frames.total
    return agreeing_pairs(entries, int(row_bits), frames.sketch, frames.start, left_rows)


def _entries(path: str, first: int, last: int, block_first: int, task: _RangeTask, row_bits: np.uint64) -> np.ndarray:
    """Uint64: key in the range, and frame of the file, of a block's entries."""
    entries = np.fromfile(path, np.uint64, last - first, offset=first * ENTRY_BYTES)
    rows = (entries & np.uint64((1 << BLOCK_BITS) - 1)) + np.uint64(block_first)
    return (((entries >> np.uint64(BLOCK_BITS)) - np.uint64(task.low_key)) >> np.uint64(task.key_bits_dropped) << row_bits) | rows


def most_voted(votes: np.ndarray) -> np.ndarray:
    """Int64 ``[n, 3]``: of votes (left, right, offset) the NUM_OFFSETS of each pair that have most, the pairs sorted."""
    votes = votes[np.lexsort(votes.T[::-1])]
    begins = np.ones(len(votes), bool)
    begins[1:] = (votes[1:] != votes[:-1]).any(axis=1)
    first = np.flatnonzero(begins)
    found, counts = votes[first], np.diff(np.append(first, len(votes)))
    found = found[np.lexsort((-counts, found[:, 1], found[:, 0]))]
    begins = np.ones(len(found), bool)
    begins[1:] = (found[1:, :2] != found[:-1, :2]).any(axis=1)
    first = np.flatnonzero(begins)
    rank = np.arange(len(found)) - np.repeat(first, np.diff(np.append(first, len(found))))
    return found[rank < NUM_OFFSETS]


def _by_pairs(candidates: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of about PAIRS_A_TASK candidates; those of one left clip stay together."""
    first = 0
    while first < len(candidates):
        last = min(len(candidates), first + PAIRS_A_TASK)
        if last < len(candidates):
            last = int(np.searchsorted(candidates[:, 0], candidates[last, 0]))
            if last <= first:
                last = int(np.searchsorted(candidates[:, 0], candidates[first, 0], side="right"))
        yield candidates[first:last]
        first = last


def _verified(task: _VerifyTask) -> pa.Table:
    """STRETCHES of the candidates that are matches."""
    rows = list[tuple[float, ...]]()
    left, left_frames, stretches, pair = -1, np.zeros(0, np.uint32), list[Stretch](), (-1, -1)
    for one, two, offset in task.candidates.tolist():
        if one != left:
            left, left_frames = one, task.frames.clip(one)
        if (one, two) != pair:
            rows += [(*pair, *stretch) for stretch in distinct(stretches)]
            pair, stretches, right_frames = (one, two), [], task.frames.clip(two)
        found = best_stretch(left_frames, right_frames, offset)
        if found and is_match(found.bit_error_rate, found.num_compared):
            stretches.append(found)
    rows += [(*pair, *stretch) for stretch in distinct(stretches)]
    columns = zip(*rows, strict=True) if rows else [[]] * len(STRETCHES)
    return pa.table([list(column) for column in columns], schema=STRETCHES)


def distinct(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Those with most evidence first, without those that lie at the place of a better one."""
    kept = list[Stretch]()
    for stretch in sorted(stretches, key=lambda found: -found.evidence):
        offset = stretch.right_frame - stretch.left_frame
        if all(abs(offset - (better.right_frame - better.left_frame)) > SAME_PLACE for better in kept):
            kept.append(stretch)
    return kept
