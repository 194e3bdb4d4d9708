"""Where the clips are that an audit names: recording, span in seconds, address of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manifests.audit.rules import CLIP_ID, END, RATE, START
from manifests.rows import Rows, Slice

RECORDING, URI = "clip.recording_id", "input.uri"


def add_places(rows: Rows, named: Sequence[dict[str, Any]]) -> None:
    """Put ``recording_id`` (hex), ``start_s``, ``end_s`` and ``uri`` into each of ``named`` (``clip_id``, ``unit``)."""
    if not {RECORDING, URI, START, END, RATE} <= {*rows.schema.names}:
        return
    by_unit: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in named:
        by_unit.setdefault(row["unit"], {}).setdefault(row["clip_id"], []).append(row)
    for unit, wanted in by_unit.items():
        table = rows.read(Slice((unit,)), [CLIP_ID, RECORDING, START, END, RATE, URI])
        ids = [clip.hex() for clip in table[CLIP_ID].to_pylist()]
        for place, clip in enumerate(ids):
            for row in wanted.get(clip, ()):
                found = {name: table[name][place].as_py() for name in table.column_names}
                rate = max(1, found[RATE])
                row["recording_id"], row["uri"] = found[RECORDING].hex(), found[URI]
                row["start_s"], row["end_s"] = found[START] / rate, found[END] / rate
