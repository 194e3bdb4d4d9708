"""Format ``datasets``: Parquet that Hugging Face `datasets` loads and streams, audio embedded as FLAC bytes.

``data/<split>/<part>-<n>.parquet`` of some 500 MB, with row groups of some 32 MB (what a stream reads at once). The Audio
feature is told in the schema's ``huggingface`` entry, as `datasets` itself does, and README.md names the splits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from manifests.export.contents import Contents
from manifests.export.front_matter import MARK, card_bytes, hub_licences
from manifests.export.row import ExportRow, Part
from manifests.schema import field
from manifests.store import Store
from manifests.tables import TableFile

AUDIO = field(
    "audio", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]), "FLAC bytes, and a name for them"
)
# Others follow from their Arrow types; naming `List` here would lock out versions of `datasets` before 4.
FEATURES = {"info": {"features": {"audio": {"_type": "Audio"}}}}
SHARD_BYTES = 500 << 20
GROUP_BYTES = 32 << 20
GROUP_ROWS = 10_000
README = f"""# Exported speech

{MARK}

Written by `stepwell manifest export`. `stepwell manifest card` writes the whole card over this page.
"""


class ParquetShards:
    """Rows with or without audio; without, there is no column ``audio``."""

    needs_audio = False

    def __init__(self, *, with_audio: bool, shard_bytes: int = SHARD_BYTES) -> None:
        self._with_audio, self._shard_bytes = with_audio, shard_bytes

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        declared, number = self._declared(schema), 0
        shard: TableFile | None = None
        for group in self._groups(rows):
            shard = shard or TableFile(declared)
            shard.append(pa.Table.from_pylist(group, schema=declared))
            if shard.num_bytes >= self._shard_bytes:
                shard.put(store, _path(part, number))
                number, shard = number + 1, None
        if shard is not None:
            shard.put(store, _path(part, number))

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        """README.md: which files are which split, as `datasets` and the hub read it."""
        split_files = [{"split": split, "path": f"data/{split}/*.parquet"} for split in contents.splits]
        front = {"license": hub_licences(contents.licences), "configs": [{"config_name": "default", "data_files": split_files}]}
        store.replace("README.md", card_bytes(front, README))

    def _declared(self, schema: pa.Schema) -> pa.Schema:
        """The files' schema. Nothing is required in it: `datasets` knows no such columns."""
        plain = [column.with_nullable(True) for column in schema]
        if not self._with_audio:
            return pa.schema(plain)
        return pa.schema([AUDIO, *plain], metadata={"huggingface": json.dumps(FEATURES)})

    def _groups(self, rows: Iterable[ExportRow]) -> Iterator[list[dict[str, Any]]]:
        """The rows of each row group."""
        group: list[dict[str, Any]] = []
        num_bytes = 0
        for row in rows:
            audio = None if row.flac is None else {"bytes": row.flac, "path": f"{row.facts['id']}.flac"}
            group.append({**({"audio": audio} if self._with_audio else {}), **row.facts})
            num_bytes += len(row.flac or b"")
            if num_bytes >= GROUP_BYTES or len(group) == GROUP_ROWS:
                yield group
                group, num_bytes = [], 0
        if group:
            yield group


def _path(part: Part, number: int) -> str:
    return f"data/{part.split}/{part.number:06d}-{number:03d}.parquet"
