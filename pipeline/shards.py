"""Documents as tar bytes, and the shards that are made of them by joining, without looking into them again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests.audio import encode_flac
from manifests.contracts import Audio
from manifests.errors import WorkError
from manifests.store import Store, json_bytes
from manifests.tars import BLOCK_BYTES, Member, end_blocks, header, index_bytes, padding


@dataclass(frozen=True, slots=True)
class TarredDocument:
    """A document as it travels: its DOCUMENTS row without the place, and its members as they stand in a tar."""

    row: dict[str, Any]
    members: list[tuple[str, int]]  # (suffix, data bytes): member ``<key>.<suffix>``
    data: bytes | memoryview  # headers, data and padding of all members, in that order

    @property
    def key(self) -> str:
        return str(self.row["key"])


def tarred(row: dict[str, Any], members: Mapping[str, bytes]) -> TarredDocument:
    """The document with ``members`` (suffix -> data). Raises ContractError for a key that no tar header can hold."""
    blocks: list[bytes] = []
    for suffix, data in members.items():
        blocks += (header(f"{row['key']}.{suffix}", len(data)), data, padding(len(data)))
    return TarredDocument(row, [(suffix, len(data)) for suffix, data in members.items()], b"".join(blocks))


def members_of(
    facts: Mapping[str, Any], turns: Sequence[tuple[Audio | None, np.ndarray | None]], sample_rate_hz: int
) -> dict[str, bytes]:
    """``K.json``, and of turn ``i`` ``K.<i>.flac`` (16 bits) of float32 [S] audio and ``K.<i>.codes.npy`` of uint16 [frames].

    A turn has those that are not None.
    """
    members = {"json": json_bytes(facts)}
    for number, (audio, codes) in enumerate(turns):
        if audio is not None:
            whole = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
            members[f"{number}.flac"] = encode_flac(whole, sample_rate_hz)
        if codes is not None:
            sink = io.BytesIO()
            np.save(sink, codes.astype(np.uint16))
            members[f"{number}.codes.npy"] = sink.getvalue()
    return members


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def write_shard(store: Store, name: str, documents: Iterable[TarredDocument]) -> list[dict[str, Any]]:
    """Write ``shards/<name>`` and its index; the documents' DOCUMENTS rows with their places.

    A shard that is there already must hold the same bytes: raises WorkError when something else wrote it.
    """
    blocks: list[bytes | memoryview] = []
    members: list[Member] = []
    rows: list[dict[str, Any]] = []
    offset = 0
    for document in documents:
        rows.append({**document.row, "shard": name, "offset": offset, "num_bytes": len(document.data)})
        blocks.append(document.data)
        for suffix, num_bytes in document.members:
            members.append(Member(f"{document.key}.{suffix}", offset + BLOCK_BYTES, num_bytes))
            offset += BLOCK_BYTES + num_bytes + -num_bytes % BLOCK_BYTES
    blocks.append(end_blocks(offset))
    # The index last: where it stands, the tar stands.
    create_equal(store, f"shards/{name}", b"".join(blocks))
    create_equal(store, f"shards/{name}.idx", index_bytes(members))
    return rows


def create_equal(store: Store, path: str, data: bytes) -> None:
    """Create an object whose bytes are decided; one that is there must be equal. Raises WorkError where it is not."""
    if not store.create(path, data) and store.read(path) != data:
        raise WorkError(f"{path!r} at {store.uri!r} was written by something else meanwhile; pack again with another --out")
