"""The documents of a pack as rows of an export: a shard is a part, a document's members come with one read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from manifests.conditions import parse_condition
from manifests.errors import RequestError
from manifests.export.row import FACTS, ExportRow, Part, words_in_seconds
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.schema import DOCUMENTS, field
from manifests.tars import read_index

TAGS = field("tags", pa.string(), "JSON of the layers' columns that the pack's recipe took along, by layer")
CHOICES = pa.schema([*(DOCUMENTS.field(name) for name in ("kind", "tasks", "num_codes", "num_text_tokens")), TAGS])
FLAC = "0.flac"


class PackReader:
    """Documents of some splits of a pack, by default all, with chosen columns of CHOICES; of those only where ``where`` is true."""

    def __init__(
        self, pack: Pack, splits: Sequence[str] | None = None, columns: Sequence[str] = (), where: str | None = None
    ) -> None:
        for split in splits or ():
            if split not in pack.splits:
                raise RequestError(f"pack {pack.store.uri!r} has no split {split!r}; it has {', '.join(pack.splits)}")
        for name in columns:
            if name not in CHOICES.names:
                raise RequestError(
                    f"column {name!r} is not in a pack's documents; besides {', '.join(FACTS.names)} there are {', '.join(CHOICES.names)}"
                )
        self._pack, self._rows = pack, PackRows(pack)
        self._splits = [split for split in pack.splits if splits is None or split in splits]
        self._columns = list(dict.fromkeys(columns))
        self._where = where
        self._condition = None if where is None else parse_condition(where, self._rows, "--where")
        self.schema = pa.schema([*FACTS, *(CHOICES.field(name) for name in self._columns)])

    @property
    def identity(self) -> dict[str, Any]:
        return {"pack_id": self._pack.pack_id, "splits": self._splits, "columns": self._columns, "where": self._where}

    def parts(self) -> list[Part]:
        """A slice of the manifest is the documents of a shard."""
        slices = [slice_ for slice_ in self._rows.slices if slice_.units[0] in self._splits]
        return [Part(number, slice_.units[0], slice_) for number, slice_ in enumerate(slices)]

    def rows(self, part: Part, *, with_audio: bool) -> Iterator[ExportRow]:
        """The shard's documents in order. The members are read also without audio: the facts are among them."""
        asked = [] if self._condition is None else self._condition.columns
        table = self._rows.read(part.place, list(dict.fromkeys([*DOCUMENTS.names, *asked])))
        table = table if self._condition is None else table.filter(self._condition.mask(table))
        shard, places = None, {}
        for document in table.to_pylist():
            if document["shard"] != shard:  # one for all, in packs that `corpus pack` wrote
                shard, places = document["shard"], self._places(document["shard"])
            yield self._row(document, places[document["key"]], with_audio=with_audio)

    def _places(self, shard: str) -> dict[str, list[tuple[str, int, int]]]:
        """Key -> (suffix, offset, bytes) of the members of a shard."""
        found: dict[str, list[tuple[str, int, int]]] = {}
        for member in read_index(self._pack.store, f"shards/{shard}"):
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, []).append((suffix, member.offset, member.num_bytes))
        return found

    def _row(self, document: Mapping[str, Any], places: Sequence[tuple[str, int, int]], *, with_audio: bool) -> ExportRow:
        start, rate = document["offset"], self._pack.sample_rate_hz
        data = self._pack.store.read(f"shards/{document['shard']}", start, document["num_bytes"])
        members = {suffix: data[offset - start : offset - start + num_bytes] for suffix, offset, num_bytes in places}
        told, num_samples = json.loads(members["json"]), document["num_samples"]
        facts = {
            "id": document["key"],
            **{name: document[name] for name in ("text", "text_source", "language", "speaker", "synthesizer")},
            "words": words_in_seconds(told.get("words")),
            **{name: told.get(name) for name in ("source", "licence", "consent", "attribution", "recording_id", "channel")},
            "start_s": told["start_sample"] / told["sample_rate_hz"] if "start_sample" in told else None,
            "duration_s": None if num_samples is None else num_samples / rate,
            "num_samples": num_samples,
            "sample_rate_hz": None if num_samples is None else rate,
        }
        chosen = {**document, "tags": json.dumps(told.get("tags"), ensure_ascii=False)}
        facts |= {name: chosen[name] for name in self._columns}
        if not with_audio:
            members.pop(FLAC, None)
        return ExportRow(facts, members.get(FLAC), members)
