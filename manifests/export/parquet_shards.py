"""Format ``datasets``: Parquet that Hugging Face `datasets` loads and streams, audio embedded as FLAC bytes.

``data/<split>/<part>-<n>.parquet`` of some 500 MB, with row groups of some 32 MB (what a stream reads at once). The Audio
feature is told in the schema's ``huggingface`` entry, as `datasets` itself does, and README.md names the splits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from manifests.export.contents import Contents
from manifests.export.front_matter import MARK, card_bytes, hub_licences
from manifests.export.rolling import roll
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
    keeps_documents = False

    def __init__(self, *, with_audio: bool, shard_bytes: int = SHARD_BYTES) -> None:
        self._with_audio, self._shard_bytes = with_audio, shard_bytes

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        declared = self._declared(schema)
        roll(rows, lambda: _ParquetShard(store, part, declared), self._shard_bytes)

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        """README.md: which files are which split, as `datasets` and the hub read it."""
        # The hub's names of splits are made of letters, digits and underscores.
        files = [{"split": re.sub(r"\W", "_", split), "path": f"data/{split}/*.parquet"} for split in contents.splits]
        front = {"license": hub_licences(contents.licences), "configs": [{"config_name": "default", "data_files": files}]}
        store.replace("README.md", card_bytes(front, README))

    def _declared(self, schema: pa.Schema) -> pa.Schema:
        """The files' schema. Nothing is required in it: `datasets` knows no such columns."""
        plain = [column.with_nullable(True) for column in schema]
        if not self._with_audio:
            return pa.schema(plain)
        return pa.schema([AUDIO, *plain], metadata={"huggingface": json.dumps(FEATURES)})


class _ParquetShard:
    """A Parquet file of row groups; the rows of the last one are still objects."""

    def __init__(self, store: Store, part: Part, schema: pa.Schema) -> None:
        self._store, self._part, self._schema = store, part, schema
        self._file = TableFile(schema)
        self._group: list[dict[str, Any]] = []
        self._group_bytes = 0

    @property
    def num_bytes(self) -> int:
        return self._file.num_bytes + self._group_bytes

    def add(self, row: ExportRow) -> None:
        audio = None if row.flac is None else {"bytes": row.flac, "path": f"{row.facts['id']}.flac"}
        self._group.append({**row.facts, "audio": audio} if AUDIO.name in self._schema.names else row.facts)
        self._group_bytes += len(row.flac or b"")
        if self._group_bytes >= GROUP_BYTES or len(self._group) == GROUP_ROWS:
            self._flush()

    def put(self, number: int) -> None:
        if self._group:
            self._flush()
        self._file.put(self._store, f"data/{self._part.split}/{self._part.number:06d}-{number:03d}.parquet")

    def _flush(self) -> None:
        self._file.append(pa.Table.from_pylist(self._group, schema=self._schema))
        self._group, self._group_bytes = [], 0
