"""Fingerprints: what a layer, a span table or a clip set was made by.

A fingerprint covers the part's own ``version``, its weights' hash, its parameters and the fingerprints of what it
reads. Change any, and the output is another one; change nothing, and it is found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests.ids import digest_blocks, digest_json

FINGERPRINT_CHARS = 16


def fingerprint(
    name: str,
    version: str,
    parameters: Mapping[str, Any],
    weights: str | None = None,
    reads: Mapping[str, str] | None = None,
) -> str:
    """16 hex characters over a part's identity. ``weights`` is ``weights_digest`` of the files, or a pinned revision."""
    return digest_json(
        {"name": name, "version": version, "parameters": dict(parameters), "weights": weights, "reads": dict(reads or {})}
    )[:FINGERPRINT_CHARS]


def weights_digest(path: str) -> str:
    """Hex digest of a weights file, read in blocks of 1 MiB."""
    with open(path, "rb") as file:
        return digest_blocks(iter(lambda: file.read(1 << 20), b"")).hex()
