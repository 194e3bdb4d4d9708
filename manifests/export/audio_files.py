"""Exported audio as FLAC files of their own, a folder a part: what formats point to that hold no audio themselves."""

from __future__ import annotations

from manifests.export.row import ExportRow, Part
from manifests.store import Store


def put_flac(store: Store, part: Part, row: ExportRow) -> str | None:
    """Path of the row's audio below the export's root; None where the row has none."""
    if row.flac is None:
        return None
    path = f"audio/{part.split}/{part.number:06d}/{row.facts['id']}.flac"
    store.write(path, row.flac)
    return path
