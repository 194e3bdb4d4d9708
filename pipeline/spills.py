"""Spills: documents sorted by place, a few hundred MB at once, committed so that an interruption costs at most one.

Each document has a *place*, a digest of (seed, key): the order of a split is the order of its places, and nothing else.

    commits/spill/<pack_id>/<part>.<n>.json      what one spill holds, created only if absent
    spills/<part>.<n>-<attempt>.documents        records by split and place: place, row as JSON, members as tar bytes
    spills/<part>.<n>-<attempt>.parquet          SPILL: where each record ends
    spills/<part>.<n>-<attempt>.json             rows of the part passed so far, the tally of these, whether the part is done

Memory is about twice ``spill_bytes``, whatever the size of the part.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from manifests.commits import Attempt, Commit, read_commit
from manifests.errors import StoreError
from manifests.ids import digest_bytes
from manifests.schema import check_table, required
from manifests.store import Store, json_bytes
from pipeline.shards import TarredDocument

SPILL_BYTES = 256 << 20
# Shards are cut at multiples of 2^-20 of all places: fine enough for a million shards, and 8 MiB of sums a split.
BIN_BITS = 20
NUM_BINS = 1 << BIN_BITS
OUTPUT = "spill"
SPILL = pa.schema(
    [
        required("split", pa.string(), "split of the document"),
        required("bin", pa.int32(), f"first {BIN_BITS} bits of its place"),
        required("end_offset", pa.int64(), "one past its record in the spill"),
        required("num_bytes", pa.int64(), "bytes of its members in a tar"),
    ]
)
_RECORD = struct.Struct("<H16sQQ")  # split, place, bytes of the row, bytes of the members
# Ids in a row are bytes, which JSON has not.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=bytes.hex).encode

Tally = Counter[tuple[str | None, int]]  # (drop reason or None, rate in Hz) -> a number


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one row of the source, and the split that it belongs to: left out for a reason, or in a document.

    ``documents`` are those that begin with the row; one that begins with an earlier row may hold it.
    """

    documents: tuple[TarredDocument, ...]
    split: str
    drop_reason: str | None
    num_samples: int = 0  # of the source
    sample_rate_hz: int = 1


class Part(Protocol):
    """A part of what is packed; picklable."""

    @property
    def name(self) -> str: ...
    def decisions(self, skip: int) -> Iterator[Decision]:
        """One a row of the part, always in the same order, without the first ``skip``."""
        ...


@dataclass(frozen=True)
class SpillTask:
    """One part to spill for one pack. ``work`` is the URI of the pack's working folder."""

    work: str
    pack_id: str
    part: Part
    seed: int
    splits: tuple[str, ...]
    spill_bytes: int = SPILL_BYTES


@dataclass(frozen=True)
class Spilled:
    """What a part became: its spills, and of each drop reason and rate the rows and their samples."""

    spills: tuple[str, ...]
    num_rows: Tally
    num_samples: Tally


def spill(task: SpillTask) -> Spilled:
    """Spill the part, going on behind what earlier attempts committed."""
    work = Store(task.work)
    names: list[str] = []
    num_rows, num_samples = Tally(), Tally()
    passed, decisions = 0, None
    while True:
        name = f"{task.part.name}.{len(names):06d}"
        standing = read_commit(work, OUTPUT, task.pack_id, name)
        if standing is None:
            decisions = task.part.decisions(passed) if decisions is None else decisions
            is_ours = _write_spill(work, task, name, decisions, passed)
            standing = spill_commit(work, task.pack_id, name)
        else:
            is_ours = False
        if not is_ours:  # somebody else's may end at another row
            decisions = None
        facts = json.loads(work.read(standing.objects["facts"].path))
        if facts["passed"] != passed + sum(count for *_, count, _ in facts["tally"]):
            raise StoreError(f"spill {name!r} at {task.work!r} does not follow the one before it; remove that folder")
        names.append(name)
        for reason, rate, rows, samples in facts["tally"]:
            num_rows[reason, rate] += rows
            num_samples[reason, rate] += samples
        passed = facts["passed"]
        if facts["is_last"]:
            return Spilled(tuple(names), num_rows, num_samples)


def _write_spill(work: Store, task: SpillTask, name: str, decisions: Iterator[Decision], passed: int) -> bool:
    """Take decisions until the spill is full or they end, and commit it; False when another attempt was first."""
    records: list[Record] = []
    num_rows, num_samples = Tally(), Tally()
    num_bytes, is_last = 0, True
    for decision in decisions:
        reason = (decision.drop_reason, decision.sample_rate_hz)
        num_rows[reason] += 1
        num_samples[reason] += decision.num_samples
        for document in decision.documents:
            record = record_of(document, task.splits.index(decision.split), task.seed)
            records.append(record)
            num_bytes += record.num_bytes
        if num_bytes >= task.spill_bytes:
            is_last = False
            break
    records.sort(key=lambda record: (record.split, record.place))
    index = pa.table(
        [
            pa.array([task.splits[record.split] for record in records], pa.string()),
            pa.array([int.from_bytes(record.place[:4], "big") >> (32 - BIN_BITS) for record in records], pa.int32()),
            pa.array(np.cumsum([record.num_bytes for record in records], dtype=np.int64)),
            pa.array([len(record.data) for record in records], pa.int64()),
        ],
        schema=SPILL,
    )
    tally = [[reason, rate, num_rows[reason, rate], num_samples[reason, rate]] for reason, rate in num_rows]
    facts = {"passed": passed + num_rows.total(), "is_last": is_last, "tally": tally}
    attempt = Attempt(work, OUTPUT, task.pack_id, name)
    attempt.put(
        "documents", "spills", ".documents", b"".join(block for record in records for block in record.blocks), len(records)
    )
    attempt.put_table("index", "spills", index)
    attempt.put("facts", "spills", ".json", json_bytes(facts))
    return attempt.commit()


class Record(NamedTuple):
    """One document in a spill."""

    split: int  # position in the pack's splits
    place: bytes  # [16]
    row: bytes  # JSON
    data: bytes | memoryview  # members, as they stand in a tar

    @property
    def num_bytes(self) -> int:
        """In the spill."""
        return _RECORD.size + len(self.row) + len(self.data)

    @property
    def blocks(self) -> tuple[bytes | memoryview, ...]:
        return (_RECORD.pack(self.split, self.place, len(self.row), len(self.data)), self.row, self.data)


def record_of(document: TarredDocument, split: int, seed: int) -> Record:
    place = digest_bytes(f"{seed}:{document.key}".encode())
    return Record(split, place, _encode([document.row, document.members]).encode(), document.data)


def records_of(data: bytes) -> Iterator[Record]:
    """The records of whole spills or ranges of them."""
    view, at = memoryview(data), 0
    while at < len(data):
        split, place, row_bytes, num_bytes = _RECORD.unpack_from(data, at)
        row_at = at + _RECORD.size
        at = row_at + row_bytes + num_bytes
        yield Record(split, place, data[row_at : row_at + row_bytes], view[row_at + row_bytes : at])


def document_of(record: Record) -> TarredDocument:
    row, members = json.loads(record.row)
    for turn in row["turns"]:
        turn["recording_id"] = turn["recording_id"] and bytes.fromhex(turn["recording_id"])
        for clip in turn["clips"]:
            clip["clip_id"] = bytes.fromhex(clip["clip_id"])
    return TarredDocument(row, [(suffix, num_bytes) for suffix, num_bytes in members], record.data)


def spill_commit(work: Store, pack_id: str, name: str) -> Commit:
    """Raises StoreError when it is gone."""
    commit = read_commit(work, OUTPUT, pack_id, name)
    if commit is None:
        raise StoreError(f"spill {name!r} at {work.uri!r} is gone; run the same command again")
    return commit


@dataclass(frozen=True)
class SplitIndex:
    """The records of one split in a spill, in order: each one's bin, bytes in a tar, and end."""

    bins: np.ndarray
    num_bytes: np.ndarray
    start_offset: int
    end_offsets: np.ndarray

    def offsets_of(self, cuts: np.ndarray) -> np.ndarray:
        """Offsets of the cuts in the spill, int64 ``[len(cuts)]``."""
        offsets = np.concatenate([[self.start_offset], self.end_offsets])
        return np.asarray(offsets[np.searchsorted(self.bins, cuts)], np.int64)


def read_index(work: Store, commit: Commit) -> dict[str, SplitIndex]:
    """Of each split that occurs in the spill."""
    path = commit.objects["index"].path
    table = check_table(work.read_table(path), SPILL, path)
    names = table["split"].to_numpy()
    bins, ends, num_bytes = (table[name].to_numpy() for name in ("bin", "end_offset", "num_bytes"))
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names)]
    found = {}
    for start, stop in itertools.pairwise(edges):
        if start < stop:
            before = int(ends[start - 1]) if start else 0
            found[str(names[start])] = SplitIndex(bins[start:stop], num_bytes[start:stop], before, ends[start:stop])
    return found
