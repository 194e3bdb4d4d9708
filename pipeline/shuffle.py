"""The external shuffle: spills in any number to shards in one order, in bounded memory, whatever interrupted them.

A shard is a span of places, which is one contiguous range of every spill. Where shards end is decided by the sizes of
all documents together, so that neither the cutting into spills nor an interruption can be seen in the shards.

Memory is about two shards, and eight bytes for every spill and shard together. A shard is gathered from as many ranges
as there are spills: ranges get small when a pack is thousands of times larger than a spill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests.errors import StoreError
from manifests.schema import DOCUMENTS, table_of
from manifests.store import Store, table_bytes
from pipeline.shards import shard_name, write_shard
from pipeline.spills import NUM_BINS, Record, document_of, read_index, records_of, spill_commit


@dataclass(frozen=True)
class ShardTask:
    """One shard: where it goes, and the bytes ``[starts, ends)`` of each spill that it is made of. Picklable."""

    out: str
    work: str
    split: str
    number: int
    paths: tuple[str, ...]  # of the spills, in ``work``
    starts: np.ndarray  # int64 [num_spills]
    ends: np.ndarray  # int64 [num_spills]

    @property
    def manifest_path(self) -> str:
        """The rows of the shard, in ``work``; what is there, is done."""
        return f"manifest/{shard_name(self.split, self.number)}.parquet"


def cut_shards(
    out: str, work: Store, pack_id: str, spills: Sequence[str], splits: Sequence[str], shard_bytes: int
) -> list[ShardTask]:
    """The shards of all splits, in order. Reads the spills' indexes, one at a time. Raises StoreError when one is gone."""
    commits = [spill_commit(work, pack_id, name) for name in spills]
    sizes = {split: np.zeros(NUM_BINS, np.int64) for split in splits}
    for commit in commits:
        for split, index in read_index(work, commit).items():
            np.add.at(sizes[split], index.bins, index.num_bytes)
    cuts = {split: cut_points(sizes[split], shard_bytes) for split in splits}
    edges = {split: np.zeros((len(cuts[split]), len(commits)), np.int64) for split in splits}
    for number, commit in enumerate(commits):
        for split, index in read_index(work, commit).items():
            edges[split][:, number] = index.offsets_of(cuts[split])
    paths = tuple(commit.objects["documents"].path for commit in commits)
    return [
        ShardTask(out, work.uri, split, number, paths, edges[split][number], edges[split][number + 1])
        for split in splits
        for number in range(len(cuts[split]) - 1)
    ]


def cut_points(sizes: np.ndarray, shard_bytes: int) -> np.ndarray:
    """Bins at which shards begin, and the end of the last: int64 ``[num_shards + 1]``.

    ``sizes`` are int64 bytes by bin. Every shard but the last holds ``shard_bytes`` or more, and less than that without
    its last bin; a split without documents has no shard.
    """
    total = np.cumsum(sizes)
    cuts, done = [0], 0
    while done < total[-1]:
        last = min(int(np.searchsorted(total, done + shard_bytes)), len(sizes) - 1)
        done = int(total[last])
        cuts.append(last + 1)
    return np.array(cuts, np.int64)


def make_shard(task: ShardTask) -> int:
    """Gather and write one shard with its index and manifest rows; the number of its documents.

    Raises StoreError when a spill is shorter than committed, WorkError when something else wrote the shard.
    """
    work, held = Store(task.work), np.flatnonzero(task.starts < task.ends)
    ranges = [(task.paths[i], int(task.starts[i]), int(task.ends[i])) for i in held]
    records: list[Record] = []
    for (path, start, end), data in zip(ranges, work.read_ranges(ranges), strict=True):
        if len(data) != end - start:
            raise StoreError(f"{path!r} at {work.uri!r} ends at {start + len(data)}, not at {end}; remove {work.uri!r}")
        records += records_of(data)
    records.sort(key=lambda record: record.place)
    rows = write_shard(Store(task.out), shard_name(task.split, task.number), map(document_of, records))
    work.create(task.manifest_path, table_bytes(table_of(rows, DOCUMENTS)))
    return len(rows)
