"""Format ``nemo``: NVIDIA NeMo's JSONL manifests over FLAC files.

Fields as NeMo's reader of manifests takes them (docs.nvidia.com/nemo, "Datasets", and its ``manifest.py``):
``audio_filepath`` (relative: to the manifest's folder), ``duration`` and ``offset`` in seconds, ``text``, ``lang``, ``speaker``,
``orig_sample_rate``. It takes no note of others; the rest of the facts and the chosen columns stand beside them under their own names. A text
that is not known is left out, which NeMo reads as empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from manifests.export.audio_files import put_flac
from manifests.export.contents import Contents
from manifests.export.lines import LinesPiece, join_pieces
from manifests.export.row import ExportRow, Part
from manifests.store import Store

RENAMED = {"duration_s": "duration", "language": "lang", "sample_rate_hz": "orig_sample_rate"}


class NemoManifest:
    needs_audio = True
    keeps_documents = False

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        with LinesPiece(store, f"{part.split}.json", part.number) as piece:
            for row in rows:
                facts = {RENAMED.get(name, name): value for name, value in row.facts.items()}
                piece.add({"audio_filepath": put_flac(store, part, row), "offset": 0.0, **facts})

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        for split in contents.splits:
            join_pieces(store, f"{split}.json", [part.number for part in parts if part.split == split])
