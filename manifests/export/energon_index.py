"""Format ``energon``: WebDataset shards with the index and the ``.nv-meta`` folder that Megatron Energon reads.

A pack's documents keep their members, codes too; a clip of a corpus becomes ``<id>.json`` and ``<id>.0.flac``. The shards are
copies: Energon wants an index of its own under the very name that a pack's has, ``<shard>.tar.idx`` (decision 0020). It
holds the offsets of the samples and of the end, uint64. Energon 5 reads ``.info.yaml``, 7 ``.info.json`` before it. Samples are
crude: a cooker in the training code decides what they become.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from manifests.export.contents import Contents
from manifests.export.lines import json_line
from manifests.export.rolling import roll
from manifests.export.row import ExportRow, Part
from manifests.store import Store, json_bytes
from manifests.tars import TarWriter

SHARD_BYTES = 512 << 20  # twice what `corpus pack` cuts: a pack's shard stays one
FOLDER = "shards"
INDEX = ".tar.idx"
OFFSET = struct.Struct("<Q")
LOADER = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset", "subflavors": {"kind": "stepwell"}}


class EnergonIndex:
    needs_audio = False
    keeps_documents = True

    def __init__(self, shard_bytes: int = SHARD_BYTES) -> None:
        self._shard_bytes = shard_bytes

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        roll(rows, lambda: _IndexedTar(store, part), self._shard_bytes)

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        """``.nv-meta``: how many samples a shard has, which shards are which split, how a sample is loaded."""
        sizes = {path: found.num_bytes for path, found in store.details(FOLDER).items() if path.endswith(INDEX)}
        counts = {path.removesuffix(".idx"): size // OFFSET.size - 1 for path, size in sizes.items()}
        splits = {split: [path for path in counts if _split(path) == split] for split in contents.splits}
        info = {"shard_counts": counts}
        store.replace(".nv-meta/.info.json", json_bytes(info))
        store.replace(".nv-meta/.info.yaml", _yaml(info))
        store.replace(".nv-meta/split.yaml", _yaml({"split_parts": splits, "exclude": []}))
        store.replace(".nv-meta/dataset.yaml", _yaml(LOADER))


class _IndexedTar:
    """A tar, and where its samples begin."""

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._part = store, part
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by put)
        self._tar = TarWriter(self._file)
        self._offsets: list[int] = []

    @property
    def num_bytes(self) -> int:
        return self._tar.num_bytes

    def add(self, row: ExportRow) -> None:
        self._offsets.append(self._tar.num_bytes)
        for suffix, data in _members(row).items():
            self._tar.add(f"{row.facts['id']}.{suffix}", data)

    def put(self, number: int) -> None:
        """The tar, then its index: what has an index is whole."""
        path = f"{FOLDER}/{self._part.split}-{self._part.number:06d}-{number:03d}"
        offsets = [*self._offsets, self._tar.num_bytes]
        with self._file:
            self._tar.finish()
            self._store.write_file(f"{path}.tar", self._file)
        self._store.write(f"{path}{INDEX}", b"".join(map(OFFSET.pack, offsets)))


def _members(row: ExportRow) -> Mapping[str, bytes]:
    if row.members:
        return row.members
    return {"json": json_line(row.facts), **({"0.flac": row.flac} if row.flac is not None else {})}


def _split(path: str) -> str:
    return path.removeprefix(f"{FOLDER}/").rsplit("-", 2)[0]


def _yaml(value: Any) -> bytes:
    import yaml

    return yaml.safe_dump(value, sort_keys=False).encode()
