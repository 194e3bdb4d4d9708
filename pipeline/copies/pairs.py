"""Pairs of clips that share something, as COPY_PAIRS: by numbers while they are decided on, by ids in the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import HOP_S
from manifests.schema import COPY_PAIRS, ID
from pipeline.copies.clip_numbers import ClipNumbers
from pipeline.copies.frames import Frames
from pipeline.copies.texts import SameText

NUMBERED = pa.schema([f.with_type(pa.int64()) if f.type == ID else f for f in COPY_PAIRS])


@dataclass(frozen=True)
class PairSide:
    """The clips of one side of some pairs, and what each shares. Shape legend: P pairs."""

    number: np.ndarray  # int64 [P]
    start: np.ndarray  # int64 [P] samples, relative to the start of the clip
    end: np.ndarray  # int64 [P]
    share: np.ndarray  # float64 [P] of the clip's audible frames

    @staticmethod
    def whole(number: np.ndarray, clips: ClipNumbers) -> PairSide:
        """All of the clips."""
        return PairSide(number, np.zeros(len(number), np.int64), clips.samples[number], np.ones(len(number)))

    @staticmethod
    def stretch(
        number: np.ndarray,
        first: np.ndarray,
        num_frames: np.ndarray,
        num_compared: np.ndarray,
        clips: ClipNumbers,
        frames: Frames,
        first_clip: int = 0,
    ) -> PairSide:
        """Frames ``[first, first + num_frames)`` of clips that stand in ``frames`` from ``first_clip`` on."""
        rates, samples = clips.rates[number], clips.samples[number]
        start, end = (np.minimum(np.rint(at * HOP_S * rates).astype(np.int64), samples) for at in (first, first + num_frames))
        audible = np.maximum(1, frames.num_audible[number + first_clip])
        return PairSide(number, start, end, np.minimum(1.0, num_compared / audible))


def pair_table(
    kind: str, left: PairSide, right: PairSide, is_whole: np.ndarray, overlap_s: np.ndarray, bit_error_rate: np.ndarray
) -> pa.Table:
    """Pairs that share audio."""
    size = len(left.number)
    columns = [
        left.number,
        right.number,
        pa.repeat(kind, size),
        is_whole,
        *(left.start, left.end, right.start, right.end),
        overlap_s.astype(np.float32),
        *(side.share.astype(np.float32) for side in (left, right)),
        bit_error_rate.astype(np.float32),
        pa.nulls(size, pa.float32()),
    ]
    return pa.table(columns, schema=NUMBERED)


def text_table(pairs: Sequence[SameText]) -> pa.Table:
    """Pairs that share a text: no copies of audio."""
    rows = [
        {
            "clip_id": pair.left,
            "other_clip_id": pair.right,
            "kind": "text",
            "is_whole": False,
            "text_similarity": pair.similarity,
        }
        for pair in pairs
    ]
    return pa.Table.from_pylist(rows, schema=NUMBERED)


def with_ids(table: pa.Table, clips: ClipNumbers) -> pa.Table:
    """The same pairs as COPY_PAIRS."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_number = NUMBERED.field(name).type != COPY_PAIRS.field(name).type
        columns.append(pa.array(clips.ids[np.asarray(column)].tolist(), ID) if is_number else column)
    return pa.table(columns, schema=COPY_PAIRS)


def exact_pairs(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Int64 ``[P]`` each: the first clip of every hash (``V16``) and each of its others; clips without a hash are in none."""
    halves = hashes.view(np.uint64).reshape(-1, 2)
    order = np.lexsort((np.arange(len(halves)), halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    is_pair = ~begins & ordered.any(axis=1)
    one, two = first[is_pair], order[is_pair]
    by_number = np.lexsort((two, one))
    return one[by_number], two[by_number]


def smallest_ids(group_of: Mapping[int, int], ids: np.ndarray) -> dict[int, bytes]:
    """Clip -> smallest id of the clips of its group."""
    found = dict[int, bytes]()
    for clip, group in group_of.items():
        found[group] = min(found.get(group, b"\xff" * 17), bytes(ids[clip]))
    return {clip: found[group] for clip, group in group_of.items()}
