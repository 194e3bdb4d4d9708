"""Fingerprints of many clips in one file, to be scanned from end to end and read clip by clip; and their sketch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import QUIET
from manifests.errors import RequestError
from pipeline.copies.landmarks import sketch

PAD = 64  # quiet frames in front, between and behind: nothing that is looked at around a landmark lies outside
BLOCK_BITS = 22  # frames that are searched for landmarks at once; a clip must fit: 28 hours
BLOCK_FRAMES = 1 << BLOCK_BITS
WORD_FRAMES = 32  # the file ends with a whole word of the sketch, whatever its end


@dataclass(frozen=True)
class Frames:
    """Fingerprints in the files of a folder, mapped as they are asked for. Picklable: whoever gets it must see the folder."""

    folder: str

    def __reduce__(self) -> tuple[type[Frames], tuple[str]]:
        return Frames, (self.folder,)

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def start(self) -> np.ndarray:
        """Int64 ``[num_clips]``: first frame of each clip in the file."""
        return self._array("start")

    @cached_property
    def num_frames(self) -> np.ndarray:
        """Int64 ``[num_clips]``."""
        return self._array("num_frames")

    @cached_property
    def num_audible(self) -> np.ndarray:
        """Int64 ``[num_clips]``: frames that can be compared."""
        return self._array("num_audible")

    @cached_property
    def total(self) -> int:
        """Frames of the file, padding too."""
        return os.path.getsize(os.path.join(self.folder, "frames")) // 4

    @cached_property
    def sketch(self) -> np.ndarray:
        """The sketch of the whole file as uint64, mapped. As a plain array: NumPy makes slices of its own maps slowly."""
        return np.asarray(np.memmap(os.path.join(self.folder, "sketch"), np.uint64, "r"))

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(np.load(os.path.join(self.folder, f"{name}.npy"), mmap_mode="r"))

    def read(self, first: int, last: int) -> np.ndarray:
        """Uint32 frames ``[first, last)`` of the file. Read, not mapped: mapped pages would count as memory of the process."""
        return np.fromfile(os.path.join(self.folder, "frames"), np.uint32, last - first, offset=first * 4)

    def clip(self, number: int) -> np.ndarray:
        """Uint32 fingerprint of a clip."""
        return self.read(int(self.start[number]), int(self.start[number] + self.num_frames[number]))

    def clip_at(self, rows: np.ndarray) -> np.ndarray:
        """Int64: the clip that each of the frames of the file belongs to."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Stretches of whole clips, at most BLOCK_FRAMES each, with quiet frames at both ends."""
        first, ends = 0, self.start + self.num_frames
        while first < len(self):
            edge = self.start[first] + BLOCK_FRAMES - 2 * PAD
            last = max(first + 1, int(np.searchsorted(ends, edge, side="right")))
            yield int(self.start[first]) - PAD, int(ends[last - 1]) + PAD
            first = last


class FramesWriter:
    """Fingerprints on their way into the files of a folder; ``close`` gives the Frames."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._frames: BinaryIO = open(os.path.join(folder, "frames"), "wb")  # noqa: SIM115 (closed by close)
        self._sketch: BinaryIO = open(os.path.join(folder, "sketch"), "wb")  # noqa: SIM115 (likewise)
        self._lengths, self._audible, self._at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        self._write(np.full(PAD, QUIET, np.uint32))

    def append(self, fingerprints: pa.ChunkedArray) -> None:
        """The fingerprints of some clips (list<uint32>); null and empty ones have no frames.

        Raises RequestError for one of more frames than BLOCK_FRAMES holds.
        """
        for chunk in fingerprints.chunks:
            edges = chunk.offsets.to_numpy().astype(np.int64)
            lengths = np.where(chunk.is_valid().to_numpy(zero_copy_only=False), np.diff(edges), 0)
            if lengths.max(initial=0) > BLOCK_FRAMES - 2 * PAD:
                raise RequestError(
                    f"a clip has a fingerprint of {lengths.max()} frames; at most {BLOCK_FRAMES - 2 * PAD} (28 hours) can be joined"
                )
            ends = np.cumsum(lengths)
            within = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
            taken = chunk.values.to_numpy(zero_copy_only=False)[np.repeat(edges[:-1], lengths) + within]
            counts = np.concatenate([[0], np.cumsum(taken != QUIET)])
            padded = _padded(lengths)
            frames = np.full(int(padded.sum()), QUIET, np.uint32)
            frames[np.repeat(np.cumsum(padded) - padded, lengths) + within] = taken
            self._write(frames)
            self._lengths.append(lengths)
            self._audible.append(counts[ends] - counts[ends - lengths])

    def _write(self, frames: np.ndarray) -> None:
        self._frames.write(frames.data)
        self._sketch.write(sketch(frames).data)
        self._at += len(frames)

    def close(self) -> Frames:
        """The Frames; nothing can be appended any more."""
        self._write(np.full(-self._at % WORD_FRAMES + 2 * WORD_FRAMES, QUIET, np.uint32))
        self._frames.close()
        self._sketch.close()
        lengths = np.concatenate(self._lengths)
        padded = _padded(lengths)
        arrays: dict[str, Any] = {
            "start": PAD + np.cumsum(padded) - padded,
            "num_frames": lengths,
            "num_audible": np.concatenate(self._audible),
        }
        for name, array in arrays.items():
            np.save(os.path.join(self._folder, f"{name}.npy"), array)
        return Frames(self._folder)


def _padded(lengths: np.ndarray) -> np.ndarray:
    """Frames that clips take in the file: an even number, a sketch has two a byte."""
    return lengths + lengths % 2 + PAD
