"""Writing the shards of a pack: documents in order, tars cut at a size, indexes written together with them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.audio import encode_flac
from manifests.contracts import Audio
from manifests.schema import DOCUMENTS, table_of
from manifests.store import Store, json_bytes, table_bytes
from manifests.tars import TarWriter


@dataclass(frozen=True)
class PackedDocument:
    """One document as it goes into a shard: its DOCUMENTS row without the place, its facts and its members."""

    row: dict[str, Any]
    facts: dict[str, Any]  # K.json
    audio: Audio | None = None  # float32 [S] at the pack's rate
    codes: np.ndarray | None = field(default=None)  # uint16 [frames]


def write_split(store: Store, split: str, documents: Iterable[PackedDocument], sample_rate_hz: int, shard_bytes: int) -> pa.Table:
    """Write ``shards/<split>-<nnnnnn>.tar`` with indexes and ``manifest/<split>.parquet``; return the DOCUMENTS table."""
    rows: list[dict[str, Any]] = []
    tar, number = TarWriter(), 0
    for document in documents:
        if tar.num_bytes >= shard_bytes:
            _close(store, tar, shard_name(split, number))
            tar, number = TarWriter(), number + 1
        offset = tar.num_bytes
        _add(tar, document, sample_rate_hz)
        place = {"shard": shard_name(split, number), "offset": offset, "num_bytes": tar.num_bytes - offset}
        rows.append({**document.row, **place})
    if tar.members:
        _close(store, tar, shard_name(split, number))
    table = table_of(rows, DOCUMENTS)
    store.write(f"manifest/{split}.parquet", table_bytes(table))
    return table


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def _add(tar: TarWriter, document: PackedDocument, sample_rate_hz: int) -> None:
    key = document.row["key"]
    tar.add(f"{key}.json", json_bytes(document.facts))
    if document.audio is not None:
        whole = np.clip(np.rint(document.audio * 32768.0), -32768, 32767).astype(np.int16)
        tar.add(f"{key}.0.flac", encode_flac(whole, sample_rate_hz))
    if document.codes is not None:
        sink = io.BytesIO()
        np.save(sink, document.codes.astype(np.uint16))
        tar.add(f"{key}.0.codes.npy", sink.getvalue())


def _close(store: Store, tar: TarWriter, name: str) -> None:
    data, index = tar.close()
    store.write(f"shards/{name}", data)
    store.write(f"shards/{name}.idx", index)
