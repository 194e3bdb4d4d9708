"""A pack as rows of an export: a shard is a part, a document's members come with one read.

A row is a turn of a document, under the document's key or, of several turns, ``<key>-<turn>``; for formats that keep whole documents
it is the document, whose facts are those that all its turns share.
"""

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
from manifests.schema import DOCUMENTS, TURN, field
from manifests.tars import read_index

TAGS = field("tags", pa.string(), "JSON of the layers' columns that the pack's recipe took along, by layer")
TURN_COLUMNS = ("role", "caption_en", "caption_zh", "num_codes", "num_text_tokens")
CHOICES = pa.schema(
    [
        *(DOCUMENTS.field(name) for name in ("kind", "relation", "tasks")),
        *(TURN.field(TURN.get_field_index(name)) for name in TURN_COLUMNS),
        TAGS,
    ]
)


class PackReader:
    """Some splits of a pack, by default all, with chosen columns of CHOICES; only documents of which ``where`` is true.

    A row is a turn, or with ``keeps_documents`` a document.
    """

    def __init__(
        self,
        pack: Pack,
        splits: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        where: str | None = None,
        *,
        keeps_documents: bool = False,
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
        self._where, self._keeps_documents = where, keeps_documents
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
            members = self._members(document, places[document["key"]])
            told = json.loads(members["json"])["turns"]
            turns = [self._turn(document, number, facts) for number, facts in enumerate(told)]
            kept = members if with_audio else {name: data for name, data in members.items() if not name.endswith(".flac")}
            if self._keeps_documents:
                yield ExportRow(_shared(document, turns), kept.get("0.flac"), kept)
            else:
                yield from (ExportRow(facts, kept.get(f"{number}.flac")) for number, facts in enumerate(turns))

    def _places(self, shard: str) -> dict[str, list[tuple[str, int, int]]]:
        """Key -> (suffix, offset, bytes) of the members of a shard."""
        found: dict[str, list[tuple[str, int, int]]] = {}
        for member in read_index(self._pack.store, f"shards/{shard}"):
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, []).append((suffix, member.offset, member.num_bytes))
        return found

    def _members(self, document: Mapping[str, Any], places: Sequence[tuple[str, int, int]]) -> dict[str, bytes]:
        """Suffix -> data."""
        start = document["offset"]
        data = self._pack.store.read(f"shards/{document['shard']}", start, document["num_bytes"])
        return {suffix: data[offset - start : offset - start + num_bytes] for suffix, offset, num_bytes in places}

    def _turn(self, document: Mapping[str, Any], number: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """FACTS of a turn, which K.json tells of, and the chosen columns."""
        turn, rate = document["turns"][number], self._pack.sample_rate_hz
        clips, num_samples = told.get("clips") or [{}], turn["num_samples"]
        # Words count from the start of their clip, and tags speak of it: of a turn of several clips neither is told.
        only = clips[0] if len(clips) == 1 else {}
        facts = {
            "id": document["key"] if len(document["turns"]) == 1 else f"{document['key']}-{number}",
            **{name: turn[name] for name in ("text", "text_source", "language")},
            "words": words_in_seconds(only.get("words")),
            **{name: told.get(name) for name in ("source", "licence", "consent", "attribution", "synthesizer", "recording_id")},
            "speaker": document["speaker"],
            "channel": clips[0].get("channel"),
            "start_s": clips[0]["start_sample"] / clips[0]["sample_rate_hz"] if "start_sample" in clips[0] else None,
            "duration_s": None if num_samples is None else num_samples / rate,
            "num_samples": num_samples,
            "sample_rate_hz": None if num_samples is None else rate,
        }
        chosen = {**document, **turn, "tags": json.dumps(only["tags"], ensure_ascii=False) if "tags" in only else None}
        return {**facts, **{name: chosen[name] for name in self._columns}}


def _shared(document: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The document as one row: what its turns share, and their lengths together."""
    first, num_samples = turns[0], document["num_samples"]
    same = {name: value if all(turn[name] == value for turn in turns) else None for name, value in first.items()}
    rate = next((turn["sample_rate_hz"] for turn in turns if turn["sample_rate_hz"]), None)
    length = {"num_samples": num_samples, "sample_rate_hz": rate, "duration_s": num_samples / rate if rate else None}
    licence = {name: document[name] for name in ("source", "licence", "synthesizer")}
    return {**same, "id": document["key"], **licence, **length}
