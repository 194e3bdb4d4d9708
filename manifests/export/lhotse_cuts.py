"""Format ``lhotse``: recordings, supervisions and cuts of Lhotse over FLAC files, a folder a split.

Each clip is a recording with one supervision and one cut over all of it. Sources are absolute: Lhotse resolves relative
ones against the current folder. ``lhotse_shar`` has the same in few large objects. Facts that Lhotse has no field for are in ``custom``.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from manifests.export.audio_files import put_flac
from manifests.export.contents import Contents
from manifests.export.lines import LinesPiece, join_pieces
from manifests.export.row import ExportRow, Part
from manifests.store import Store

FILES = ("recordings", "supervisions", "cuts")
OWN_FIELDS = ("id", "text", "words", "language", "speaker", "duration_s", "num_samples", "sample_rate_hz")


class LhotseCuts:
    needs_audio = True
    keeps_documents = False

    def write(self, store: Store, part: Part, rows: Iterable[ExportRow], schema: pa.Schema) -> None:
        root = store.root if store.is_local else store.uri
        with ExitStack() as stack:
            pieces = {name: stack.enter_context(LinesPiece(store, _path(part.split, name), part.number)) for name in FILES}
            for row in rows:
                path = posixpath.join(root, put_flac(store, part, row) or "")
                for name, manifest in manifests_of(row.facts, "file" if store.is_local else "url", path).items():
                    pieces[name].add(manifest)

    def finish(self, store: Store, parts: Sequence[Part], contents: Contents) -> None:
        for split in contents.splits:
            for name in FILES:
                join_pieces(store, _path(split, name), [part.number for part in parts if part.split == split])


def _path(split: str, name: str) -> str:
    return f"{split}/{name}.jsonl.gz"


def manifests_of(facts: dict[str, Any], source_type: str, source: str) -> dict[str, dict[str, Any]]:
    """The row's recording, supervision and cut, as Lhotse serialises them, over a source of audio (its AudioSource)."""
    key, duration_s = facts["id"], facts["duration_s"]
    recording = {
        "id": key,
        "sources": [{"type": source_type, "channels": [0], "source": source}],
        "sampling_rate": facts["sample_rate_hz"],
        "num_samples": facts["num_samples"],
        "duration": duration_s,
        "channel_ids": [0],
    }
    custom = {name: value for name, value in facts.items() if name not in OWN_FIELDS and value is not None}
    supervision = {"id": key, "recording_id": key, "start": 0.0, "duration": duration_s, "channel": 0, "custom": custom}
    supervision |= {name: facts[name] for name in ("text", "language", "speaker") if facts[name] is not None}
    if facts["words"] is not None:
        supervision["alignment"] = {"word": [_aligned(word) for word in facts["words"]]}
    cut = {"id": key, "start": 0.0, "duration": duration_s, "channel": 0, "supervisions": [supervision], "recording": recording}
    return {"recordings": recording, "supervisions": supervision, "cuts": {**cut, "type": "MonoCut"}}


def _aligned(word: dict[str, Any]) -> list[Any]:
    """Lhotse's AlignmentItem: symbol, start, duration, score."""
    return [word["word"], word["start_s"], word["end_s"] - word["start_s"], word["confidence"]]
