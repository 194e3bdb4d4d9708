"""Content ids: 16-byte BLAKE2b digests, stored as ``binary(16)`` and shown as hex.

Equal content has equal ids, on any machine, in any order: nothing here reads a clock, a host or a counter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

ID_BYTES = 16


def digest_bytes(data: bytes) -> bytes:
    """The 16-byte id of some bytes."""
    return hashlib.blake2b(data, digest_size=ID_BYTES).digest()


def digest_blocks(blocks: Iterable[bytes]) -> bytes:
    """The 16-byte id of a byte stream, without holding it."""
    state = hashlib.blake2b(digest_size=ID_BYTES)
    for block in blocks:
        state.update(block)
    return state.digest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """Hex digest of a JSON value; key order does not matter."""
    return digest_bytes(canonical_json(value).encode()).hex()


def recording_id(content_digest: bytes) -> bytes:
    """Id of a recording: the digest of the acquired file's bytes."""
    if len(content_digest) != ID_BYTES:
        raise ValueError(f"content digest has {len(content_digest)} bytes; it must have {ID_BYTES}")
    return content_digest


def clip_id(recording: bytes, channel: int, sample_rate_hz: int, start_sample: int, end_sample: int) -> bytes:
    """Id of a clip: (recording, channel, rate, start, end), independent of the clip set that cut it."""
    key = f"{recording.hex()}:{channel}:{sample_rate_hz}:{start_sample}:{end_sample}"
    return digest_bytes(key.encode())


def input_id(uri: str, num_bytes: int, version: str) -> bytes:
    """Id of an input: its source key, (URI, size, etag or mtime). A changed file is a new input."""
    return digest_bytes(canonical_json([uri, num_bytes, version]).encode())


def new_attempt_id() -> str:
    """A random name part that keeps two attempts at one unit apart; never part of any content id."""
    return os.urandom(6).hex()
