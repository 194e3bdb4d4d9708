"""Format ``jsonl``: one JSON object a row with every fact that is known; audio as FLAC files beside it.

``<split>.jsonl``: the columns by their names, nulls left out, and ``audio`` with ``offset_s`` 0: the file, relative to the
export's root, holds the clip alone. Without audio, ``recording_id``, ``channel``, ``start_s`` and ``duration_s`` say where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from manifests.export.audio_files import put_flac
from manifests.export.contents import Contents
from manifests.export.lines import LinesPiece, join_pieces
from manifests.export.row import ExportRow, Part
from manifests.store import Store


class PlainLines:
    needs_audio = False
    keeps_documents = False

    def __init__(self, *, with_audio: bool) -> None:
        self._with_audio = with_audio

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        with LinesPiece(store, f"{part.split}.jsonl", part.number) as piece:
            for row in rows:
                path = put_flac(store, part, row)
                piece.add({**row.facts, "audio": path, "offset_s": None if path is None else 0.0})

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        for split in contents.splits:
            join_pieces(store, f"{split}.jsonl", [part.number for part in parts if part.split == split])
