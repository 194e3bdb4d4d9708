"""What a format is, and the formats there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import pyarrow as pa

from manifests.errors import RequestError
from manifests.export.contents import Contents
from manifests.export.energon_index import EnergonIndex
from manifests.export.lhotse_cuts import LhotseCuts
from manifests.export.lhotse_shar import LhotseShar
from manifests.export.nemo_manifest import NemoManifest
from manifests.export.parquet_shards import ParquetShards
from manifests.export.plain_lines import PlainLines
from manifests.export.row import ExportRow, Part
from manifests.store import Store


class ExportFormat(Protocol):
    """One library's layout on disk. A part is written by itself; ``finish`` writes what tells of all parts.

    Both may run again after an interruption and then write the same names.
    """

    @property
    def needs_audio(self) -> bool:
        """Whether a row without audio has no place in it."""
        ...

    @property
    def keeps_documents(self) -> bool:
        """Whether a row is a whole document of a pack with its members; else it is one of its turns."""
        ...

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        """Write the rows of one part, holding no more of them than it must."""
        ...

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None: ...


FORMATS = ("datasets", "lhotse", "lhotse_shar", "energon", "nemo", "jsonl")


def make_format(name: str, *, with_audio: bool) -> ExportFormat:
    """The format by its name. Raises RequestError for another, and without audio for one that is nothing without."""
    made: dict[str, ExportFormat] = {
        "datasets": ParquetShards(with_audio=with_audio),
        "lhotse": LhotseCuts(),
        "lhotse_shar": LhotseShar(),
        "energon": EnergonIndex(),
        "nemo": NemoManifest(),
        "jsonl": PlainLines(with_audio=with_audio),
    }
    if name not in made:
        raise RequestError(f"format {name!r} is not one of {', '.join(FORMATS)}")
    if made[name].needs_audio and not with_audio:
        silent = ", ".join(other for other, kind in made.items() if not kind.needs_audio)
        raise RequestError(f"format {name!r} points to audio and cannot go without it; --no-audio goes with {silent}")
    return made[name]
