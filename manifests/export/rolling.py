"""Shards that are filled with rows one after the other, each put when it is large enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from manifests.export.row import ExportRow


class Shard(Protocol):
    """One shard in the making, in a local temporary file."""

    @property
    def num_bytes(self) -> int:
        """What it holds so far."""
        ...

    def add(self, row: ExportRow) -> None: ...

    def put(self, number: int) -> None:
        """Write it under its name; ``number`` counts the shards of a part. Nothing can be added any more."""
        ...


def roll(rows: Iterable[ExportRow], start: Callable[[], Shard], shard_bytes: int) -> None:
    """All rows into shards, each of at least ``shard_bytes`` but for the last; no rows, no shard."""
    number = 0
    shard: Shard | None = None
    for row in rows:
        shard = shard or start()
        shard.add(row)
        if shard.num_bytes >= shard_bytes:
            shard.put(number)
            number, shard = number + 1, None
    if shard is not None:
        shard.put(number)
