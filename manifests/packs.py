"""Reading a pack: documents of a split in order, members by range read through the shard index.

Plain ``webdataset`` reads the same shards; this reader adds random access, which exact resume rests on.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.audio import decode_flac
from manifests.contracts import Audio
from manifests.errors import RequestError
from manifests.store import Store
from manifests.tars import Member, read_index, read_member

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Document:
    """What one training example is made from."""

    key: str
    facts: dict[str, Any]  # K.json
    audio: Audio | None  # float32 [S] at the pack's rate
    codes: np.ndarray | None  # uint16 [frames]


class Pack:
    """A pack on any fsspec URI."""

    def __init__(self, store: Store, head: dict[str, Any]) -> None:
        self.store, self.head = store, head
        self._members: dict[str, dict[str, Member]] = {}

    @staticmethod
    def open(uri: str) -> Pack:
        """Raises RequestError when there is no pack at the URI."""
        store = Store(uri)
        try:
            head = json.loads(store.read("pack.json"))
        except FileNotFoundError as error:
            raise RequestError(
                f"no pack at {uri!r} (no pack.json); make one with `stepwell corpus pack CORPUS --out {uri}`"
            ) from error
        if head.get("format_version") != FORMAT_VERSION:
            raise RequestError(f"pack {uri!r} has format {head.get('format_version')!r}; this version reads {FORMAT_VERSION}")
        return Pack(store, head)

    @property
    def pack_id(self) -> str:
        """Digest of everything that decides the pack's content."""
        return str(self.head["pack_id"])

    @property
    def splits(self) -> list[str]:
        return list(self.head["splits"])

    @property
    def sample_rate_hz(self) -> int:
        return int(self.head["sample_rate_hz"])

    def documents(self, split: str) -> pa.Table:
        """DOCUMENTS of a split, in shard order."""
        if split not in self.splits:
            raise RequestError(f"pack {self.store.uri!r} has no split {split!r}; it has {self.splits}")
        return self.store.read_table(f"manifest/{split}.parquet")

    def read(self, shard: str, key: str) -> Document:
        """One document by shard and key, as ``documents`` lists them."""
        path = f"shards/{shard}"
        if shard not in self._members:
            self._members[shard] = {m.name: m for m in read_index(self.store, path)}
        members = self._members[shard]
        audio = codes = None
        if f"{key}.0.flac" in members:
            audio = decode_flac(read_member(self.store, path, members[f"{key}.0.flac"]))[0]
        if f"{key}.0.codes.npy" in members:
            codes = np.load(io.BytesIO(read_member(self.store, path, members[f"{key}.0.codes.npy"])))
        facts = json.loads(read_member(self.store, path, members[f"{key}.json"]))
        return Document(key, facts, audio, codes)
