"""The documents of a pack as rows of an export: a shard is a part, a document's members come with one read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from manifests.errors import RequestError
from manifests.export.row import FACTS, ExportRow, Part, words_in_seconds
from manifests.packs import Pack
from manifests.schema import DOCUMENTS, field
from manifests.tables import open_part
from manifests.tars import read_index

TAGS = field("tags", pa.string(), "JSON of the layers' columns that the pack's recipe took along, by layer")
CHOICES = pa.schema([*(DOCUMENTS.field(name) for name in ("kind", "tasks", "num_codes", "num_text_tokens")), TAGS])
FLAC = "0.flac"


class PackReader:
    """Documents of some splits of a pack, by default all, with chosen columns of CHOICES."""

    def __init__(self, pack: Pack, splits: Sequence[str] | None = None, columns: Sequence[str] = ()) -> None:
        for split in splits or ():
            if split not in pack.splits:
                raise RequestError(f"pack {pack.store.uri!r} has no split {split!r}; it has {', '.join(pack.splits)}")
        for name in columns:
            if name not in CHOICES.names:
                raise RequestError(
                    f"column {name!r} is not in a pack's documents; besides {', '.join(FACTS.names)} there are {', '.join(CHOICES.names)}"
                )
        self.pack = pack
        self._splits = [split for split in pack.splits if splits is None or split in splits]
        self._columns = list(dict.fromkeys(columns))
        self.schema = pa.schema([*FACTS, *(CHOICES.field(name) for name in self._columns)])

    @property
    def uri(self) -> str:
        return self.pack.store.uri

    @property
    def identity(self) -> dict[str, Any]:
        return {"pack_id": self.pack.pack_id, "splits": self._splits, "columns": self._columns}

    def parts(self) -> list[Part]:
        """A row group of a split's manifest is the documents of a shard."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        places = []
        for split in self._splits:
            with open_part(self.pack.store, _manifest(split)) as file:
                groups = range(file.metadata.num_row_groups)
                places += [(split, group, file.metadata.row_group(group).num_rows) for group in groups]
        return [Part(number, split, group, num) for number, (split, group, num) in enumerate(places)]

    def rows(self, part: Part, *, with_audio: bool) -> Iterator[ExportRow]:
        """The shard's documents in order. The members are read also without audio: the facts are among them."""
        with open_part(self.pack.store, _manifest(part.split)) as file:
            documents = file.read_row_group(part.place, use_threads=False).to_pylist()
        shard, places = None, {}
        for document in documents:
            if document["shard"] != shard:  # one for all, in packs that `corpus pack` wrote
                shard, places = document["shard"], self._places(document["shard"])
            yield self._row(document, places[document["key"]], with_audio=with_audio)

    def _places(self, shard: str) -> dict[str, list[tuple[str, int, int]]]:
        """Key -> (suffix, offset, bytes) of the members of a shard."""
        found: dict[str, list[tuple[str, int, int]]] = {}
        for member in read_index(self.pack.store, f"shards/{shard}"):
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, []).append((suffix, member.offset, member.num_bytes))
        return found

    def _row(self, document: Mapping[str, Any], places: Sequence[tuple[str, int, int]], *, with_audio: bool) -> ExportRow:
        start, rate = document["offset"], self.pack.sample_rate_hz
        data = self.pack.store.read(f"shards/{document['shard']}", start, document["num_bytes"])
        members = {suffix: data[offset - start : offset - start + num_bytes] for suffix, offset, num_bytes in places}
        told, num_samples = json.loads(members["json"]), document["num_samples"]
        facts = {
            "id": document["key"],
            **{name: document[name] for name in ("text", "text_source", "language", "speaker", "synthesizer")},
            "words": words_in_seconds(told.get("words")),
            **{name: told.get(name) for name in ("source", "licence", "recording_id", "channel")},
            "start_s": told["start_sample"] / told["sample_rate_hz"] if "start_sample" in told else None,
            "duration_s": None if num_samples is None else num_samples / rate,
            "num_samples": num_samples,
            "sample_rate_hz": None if num_samples is None else rate,
        }
        chosen = {**document, "tags": json.dumps(told.get("tags"), ensure_ascii=False)}
        facts |= {name: chosen[name] for name in self._columns}
        return ExportRow(facts, members.get(FLAC) if with_audio else None, members)


def _manifest(split: str) -> str:
    return f"manifest/{split}.parquet"
