"""Format ``lhotse_shar``: Lhotse Shar, a folder a split: ``cuts.<n>.jsonl.gz`` beside ``recording.<n>.tar`` with the audio.

``CutSet.from_shar(in_dir=...)`` streams it. A tar holds of each cut, in the order of the lines, ``<id>.flac`` and
``<id>.json``, its recording (lhotse.readthedocs.io, "Lhotse Shar").
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import pyarrow as pa

from manifests.export.contents import Contents
from manifests.export.lhotse_cuts import manifests_of
from manifests.export.lines import json_line
from manifests.export.rolling import roll
from manifests.export.row import ExportRow, Part
from manifests.store import Store
from manifests.tars import TarWriter

SHARD_BYTES = 256 << 20


class LhotseShar:
    needs_audio = True
    keeps_documents = False

    def __init__(self, shard_bytes: int = SHARD_BYTES) -> None:
        self._shard_bytes = shard_bytes

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        roll(rows, lambda: _SharShard(store, part), self._shard_bytes)

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        """Nothing: a shard is whole by itself."""


class _SharShard:
    """The audio in a temporary file; the lines of its cuts are held."""

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._part = store, part
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by put)
        self._tar = TarWriter(self._file)
        self._lines: list[bytes] = []

    @property
    def num_bytes(self) -> int:
        return self._tar.num_bytes

    def add(self, row: ExportRow) -> None:
        made = manifests_of(row.facts, "shar", "")
        self._tar.add(f"{row.facts['id']}.flac", row.flac or b"")
        self._tar.add(f"{row.facts['id']}.json", json_line(made["recordings"]))
        self._lines.append(json_line(made["cuts"]))

    def put(self, number: int) -> None:
        """The audio, then the cuts that are in it."""
        name = f"{self._part.number:06d}{number:03d}"  # Lhotse pairs files by the order of their names
        with self._file:
            self._tar.finish()
            self._store.write_file(f"{self._part.split}/recording.{name}.tar", self._file)
        self._store.write(f"{self._part.split}/cuts.{name}.jsonl.gz", gzip.compress(b"".join(self._lines), mtime=0))
