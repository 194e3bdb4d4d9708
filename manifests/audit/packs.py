"""A pack's documents under the names that an audit's recipe has for clips: one recipe fits both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.rows import Slice

PACKED, PACKED_TEXT = "documents", "document.text"  # the table's name, and its column of texts
# Column of the documents -> its name in an audit. Those that are not here are ``document.<column>``.
AS_CLIPS = {
    "clip_id": "clip.clip_id",
    "recording_id": "clip.recording_id",
    "duration_s": "clip.duration_s",
    "language": "clip.language",
    "speaker": "clip.speaker",
    "shard": "clip.unit",
    "source": "input.source",
    "licence": "input.licence",
    "synthesizer": "input.synthesizer",
    "num_codes": "codes.num_codes",
}


class DocumentRows:
    """The documents of a pack, or of one of its splits."""

    table = PACKED

    def __init__(self, pack: Pack, split: str | None = None) -> None:
        self.pack, self._split = pack, split
        self._rows = PackRows(pack, split)
        self._stored = {AS_CLIPS.get(name, f"document.{name}"): name for name in self._rows.schema.names}
        self.schema = pa.schema([self._rows.schema.field(name).with_name(full) for full, name in self._stored.items()])
        self.slices: Sequence[Slice] = self._rows.slices

    def __reduce__(self) -> tuple[Callable[..., DocumentRows], tuple[str, str | None]]:
        return _opened, (self.uri, self._split)

    @property
    def uri(self) -> str:
        return self.pack.store.uri

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        return self._rows.read(part, [self._stored[full] for full in columns]).rename_columns(list(columns))


def _opened(uri: str, split: str | None) -> DocumentRows:
    return DocumentRows(Pack.open(uri), split)
