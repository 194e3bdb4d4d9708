"""The rows of a corpus or a pack, slice by slice: every fact of a clip under one full name, joined by position.

``clip.duration_s`` is of the clip itself, ``recording.bandwidth_hz`` of its recording, ``input.licence`` what the inputs of
that recording say, ``asr.text`` of a layer, ``speaker_id.similarity`` of a decision table. A column is read when it is
asked for, and only then. A layer that lacks a unit gives nulls, its status too: audits look at corpora that are not done.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.compacted import Compaction, read_compaction
from manifests.corpus import Corpus, UnitView
from manifests.earlier_tables import completed
from manifests.errors import RequestError
from manifests.facts import FactsReader
from manifests.gates import CLIP_COLUMNS, clip_column
from manifests.packs import Pack
from manifests.schema import CLIPS, DOCUMENTS, FAILURES, INPUTS, QUARANTINE, RECORDINGS, SPANS, field
from manifests.snapshots import INGEST, clips_output, layer_output, spans_output
from manifests.tables import open_part

SLICE_ROWS = 1 << 17
SLICE_UNITS = 64  # of those whose rows nobody has counted
PREFERRED = ("clip", "input", "recording")  # whose column a bare name means, where several have it
SPEAKERS_TABLE = "speaker_id"
INGESTED = {"recordings": RECORDINGS, "inputs": INPUTS, "quarantine": QUARANTINE}
DERIVED = (
    field("duration_s", pa.float64(), "length of the clip"),
    field("speech_share", pa.float64(), "part of the clip in which VAD hears speech"),
    field("overlap_share", pa.float64(), "part of the clip in which a second speaker talks too"),
    field("longest_pause_s", pa.float64(), "longest stretch between two speech spans"),
    field("language", pa.string(), "as the source says, else as the first layer of transcripts (by name) heard it"),
    field("speaker", pa.string(), "speaker_id (hex) where speakers were linked, else source:label as the source says"),
    field("unit", pa.string(), "unit that the recording came with"),
)


class Slice(NamedTuple):
    """Some rows: those of ``units`` in plan order, or row groups ``[start, stop)`` of a pack's split."""

    units: tuple[str, ...]
    start: int = 0
    stop: int = 0


class Rows(Protocol):
    """A table that may be larger than memory. Picklable; threads may share one."""

    @property
    def uri(self) -> str:
        """Of the corpus or pack."""

    @property
    def table(self) -> str:
        """Name of the table: ``clips``, ``documents``, …"""

    @property
    def schema(self) -> pa.Schema:
        """Every column by its full name, with its description."""

    @property
    def slices(self) -> Sequence[Slice]:
        """What is read at a time, in order."""

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        """Exactly ``columns`` (full names) of a slice's rows."""


def resolve(rows: Rows, name: str) -> str:
    """The full name of a column. Raises RequestError where there is none, or a bare name could mean several."""
    names = rows.schema.names
    if name in names:
        return name
    found = [full for full in names if full.rpartition(".")[2] == name]
    preferred = next((full for owner in PREFERRED for full in found if full == f"{owner}.{name}"), None)
    if preferred or len(found) == 1:
        return preferred or found[0]
    if found:
        raise RequestError(f"column {name!r} could be {', '.join(found)}; write which")
    bare = {full.rpartition(".")[2]: full for full in names}
    near = difflib.get_close_matches(name, [*names, *bare], 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names)}"
    raise RequestError(f"column {name!r} is not in the {rows.table} of {rows.uri!r}; {hint}")


def corpus_rows(corpus: Corpus, table: str = "clips") -> CorpusRows:
    """A table of a corpus: ``clips`` with all that is known of them, ``recordings``, ``inputs``, ``quarantine``, ``spans:NAME``,
    ``failures:NAME``. Raises RequestError naming those there are."""
    return ClipRows(corpus) if table == "clips" else UnitRows(corpus, table)


class CorpusRows:
    """What the tables of a corpus share: slices of whole units."""

    def __init__(self, corpus: Corpus, table: str, counted: tuple[str, str]) -> None:
        """``counted`` is the (output, role) whose rows bound a slice."""
        self.corpus, self.table = corpus, table
        self.slices = _unit_slices(corpus, *counted)

    def __reduce__(self) -> tuple[Callable[..., CorpusRows], tuple[str, int, str]]:
        return _opened, (self.uri, self.corpus.snapshot.number, self.table)

    @property
    def uri(self) -> str:
        return self.corpus.store.uri

    @property
    def schema(self) -> pa.Schema:
        raise NotImplementedError

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        raise NotImplementedError


@lru_cache(maxsize=8)
def _opened(uri: str, snapshot: int, table: str) -> CorpusRows:
    """A worker gets many slices of one table."""
    return corpus_rows(Corpus.open(uri, snapshot), table)


class UnitRows(CorpusRows):
    """A table that has rows of its own in every unit; columns by their plain names."""

    def __init__(self, corpus: Corpus, table: str) -> None:
        kind, _, name = table.partition(":")
        read: Callable[[UnitView, list[str]], pa.Table]
        if kind in INGESTED and not name:
            output, schema, read = INGEST, INGESTED[kind], getattr(UnitView, kind)
        elif kind == "spans":
            output, schema, read = spans_output(name), SPANS, lambda view, columns: view.spans(name, columns)
        elif kind == "failures":
            output, schema, read = spans_output(name), FAILURES, lambda view, columns: view.failures(name, columns)
        else:
            raise RequestError(f"table {table!r} is not one of {', '.join(_table_names(corpus))}")
        if output not in corpus.snapshot.current:
            raise RequestError(f"table {table!r} is not one of {', '.join(_table_names(corpus))}")
        super().__init__(corpus, table, (output, kind))
        self._schema, self._read = schema, read

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        read = [self._read(UnitView(self.corpus, unit), list(columns)) for unit in part.units]
        return pa.concat_tables([self._schema.empty_table().select(list(columns)), *read]) if columns else _rows_only(read)


def _table_names(corpus: Corpus) -> list[str]:
    spans = [output.partition("/")[2] for output in sorted(corpus.snapshot.current) if output.startswith("spans/")]
    return ["clips", *INGESTED, *(f"{kind}:{name}" for name in spans for kind in ("spans", "failures"))]


@dataclass(frozen=True)
class _Owner:
    """Whose columns a prefix has: an output with a row a clip, read by position."""

    output: str
    fingerprint: str
    role: str
    schema: pa.Schema


class ClipRows(CorpusRows):
    """The clips of the current clip set with all that is known of each."""

    def __init__(self, corpus: Corpus) -> None:
        self._clips = clips_output(corpus.clip_set)
        super().__init__(corpus, "clips", (self._clips, "clips"))
        self._facts = FactsReader(corpus)
        self._layers = {name: _layer_owner(corpus, name) for name in corpus.layers()}
        self._decided = {name: schema for name in corpus.snapshot.tables if (schema := _decision_schema(corpus, name))}
        self._texts = [name for name, owner in self._layers.items() if {"text", "language"} <= {*owner.schema.names}]
        owned = {
            "clip": [*CLIPS, *DERIVED],
            "recording": [f for f in RECORDINGS if f.name != "recording_id"],
            "input": [f for f in INPUTS if f.name not in ("recording_id", "input_id")],
            **{name: [f for f in owner.schema if f.name != "clip_id"] for name, owner in self._layers.items()},
            **{name: [f for f in schema if f.name != "clip_id"] for name, schema in self._decided.items()},
        }
        self._schema = pa.schema(
            [f.with_name(f"{owner}.{f.name}").with_nullable(True) for owner, fs in owned.items() for f in fs]
        )

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        return _ClipSlice(self, part.units).read(columns)


class _ClipSlice:
    """The clips of some units; what several columns need is read once."""

    def __init__(self, rows: ClipRows, units: Sequence[str]) -> None:
        self._rows, self._corpus = rows, rows.corpus
        mark = self._corpus.fingerprint(rows._clips)
        self._units = [unit for unit in units if self._corpus.has(rows._clips, unit)]
        self._place = (rows._clips, mark)
        self._shown = self._shown_rows()

    def _shown_rows(self) -> pa.ChunkedArray | None:
        """Bool a committed clip; None where readers see all of them."""
        views = [UnitView(self._corpus, unit) for unit in self._units]
        masks = [view.shown_clips() for view in views]
        if all(mask is None for mask in masks):
            return None
        counts = self._committed(["channel"])[1]
        filled = [pa.chunked_array([pa.repeat(True, n)]) if m is None else m for m, n in zip(masks, counts, strict=True)]
        return pa.chunked_array([chunk for mask in filled for chunk in mask.chunks], pa.bool_())

    def _committed(self, columns: list[str]) -> tuple[pa.Table, list[int]]:
        if not self._units:
            return CLIPS.empty_table().select(columns), []
        return self._corpus.tables.read_many(*self._place, self._units, "clips", columns)

    def read(self, columns: Sequence[str]) -> pa.Table:
        wanted: dict[str, list[str]] = {}
        for full in columns:
            owner, _, name = full.partition(".")
            wanted.setdefault(owner, []).append(name)
        clips = self._clip_columns(wanted)
        self._num_rows = clips.num_rows
        found: dict[str, pa.ChunkedArray | pa.Array] = {}
        recordings = clips["recording_id"] if "recording_id" in clips.column_names else None
        for owner, names in wanted.items():
            if owner == "recording":
                table = self._joined(self._recordings(names), recordings, names)
            elif owner == "input":
                table = self._joined(self._rows._facts.of_units(self._units, names), recordings, names)
            elif owner in self._rows._layers:
                table = self._layer(owner, names)
            elif owner != "clip":
                table = self._decided(owner, names)
            else:
                continue
            found |= {f"{owner}.{name}": table[name] for name in names}
        for name in wanted.get("clip", ()):
            found[f"clip.{name}"] = self._clip_column(name, clips)
        if not columns:
            return _rows_only([clips])
        schema = self._rows.schema
        return pa.table({full: found[full] for full in columns}, schema=pa.schema([schema.field(full) for full in columns]))

    def _clip_columns(self, wanted: dict[str, list[str]]) -> pa.Table:
        """The committed columns of the clips that the wanted ones are made of, hidden rows left out."""
        asked = set(wanted.get("clip", ()))
        names = asked & {*CLIPS.names}
        if asked & {"duration_s", "speech_share", "overlap_share", "longest_pause_s"}:
            names |= {"start_sample", "end_sample", "sample_rate_hz", "speech_samples", "overlap_samples"}
        if "longest_pause_s" in asked:
            names.add("speech_spans")
        if wanted.keys() & {"recording", "input"} or asked & {"language", "speaker"}:
            names.add("recording_id")
        table = self._committed(sorted(names) or ["channel"])[0]
        return table if self._shown is None else table.filter(self._shown)

    def _clip_column(self, name: str, clips: pa.Table) -> pa.ChunkedArray | pa.Array:
        if name in CLIPS.names:
            return clips[name]
        if name in CLIP_COLUMNS:
            return clip_column(clips, name)
        if name == "unit":
            counts = self._committed(["channel"])[1]
            units = pa.array(self._units, pa.string()).take(pa.array(np.repeat(np.arange(len(counts)), counts)))
            return units if self._shown is None else units.filter(pa.array(self._shown.to_numpy()))
        if name == "language":
            told = self._joined(self._rows._facts.of_units(self._units, ["language"]), clips["recording_id"], ["language"])
            return _first_known(
                [told["language"], *(self._layer(layer, ["language"])["language"] for layer in self._rows._texts)]
            )
        return self._speaker(clips)

    def _speaker(self, clips: pa.Table) -> pa.ChunkedArray | pa.Array:
        facts = self._rows._facts.of_units(self._units, ["source", "speaker_label"])
        labels = pc.binary_join_element_wise(facts["source"], facts["speaker_label"], ":")
        told = self._joined(facts.append_column("speaker", labels), clips["recording_id"], ["speaker"])["speaker"]
        if SPEAKERS_TABLE not in self._rows._decided:
            return told
        heard = self._decided(SPEAKERS_TABLE, ["speaker_id"])["speaker_id"].combine_chunks().dictionary_encode()
        now = _aliases(self._corpus)
        ids = [now.get(given, given).hex() for given in heard.dictionary.to_pylist()]
        return _first_known([pa.array(ids, pa.string()).take(heard.indices), told])

    def _recordings(self, names: list[str]) -> pa.Table:
        read = ["recording_id", *names]
        views = [UnitView(self._corpus, unit) for unit in self._units]
        if not views or any(view.hidden_recordings for view in views):
            return pa.concat_tables([RECORDINGS.empty_table().select(read), *(view.recordings(read) for view in views)])
        return self._corpus.tables.read_many(INGEST, self._corpus.fingerprint(INGEST), self._units, "recordings", read)[0]

    @staticmethod
    def _joined(facts: pa.Table, recordings: pa.ChunkedArray | None, names: list[str]) -> pa.Table:
        """The facts of each clip's recording."""
        places = pc.index_in(recordings, value_set=facts["recording_id"].combine_chunks())
        return pa.table({name: facts[name].combine_chunks().take(places) for name in names})

    def _layer(self, name: str, columns: list[str]) -> pa.Table:
        owner = self._rows._layers[name]
        missing = [unit for unit in self._units if not self._corpus.has(owner.output, unit)]
        if missing or not self._units:
            return self._by_unit(
                owner.schema, columns, lambda view: view.layer(name, columns) if view.unit_id not in missing else None
            )
        table = self._corpus.tables.read_many(owner.output, owner.fingerprint, self._units, owner.role, columns)[0]
        return table if self._shown is None else table.filter(self._shown)

    def _decided(self, name: str, columns: list[str]) -> pa.Table:
        head = self._corpus.decision_table(name)
        role = head.roles[0]

        def rows_of(view: UnitView) -> pa.Table | None:
            return view.decisions(name, role, columns) if head.find(role, view.unit_id, self._corpus.snapshot) else None

        return self._by_unit(self._rows._decided[name], columns, rows_of)

    def _by_unit(self, schema: pa.Schema, columns: list[str], read: Callable[[UnitView], pa.Table | None]) -> pa.Table:
        """Rows of one unit after the other, nulls for a unit that ``read`` has none of."""
        kept = pa.schema([schema.field(name).with_nullable(True) for name in columns])
        tables = [kept.empty_table()]
        for unit in self._units:
            view = UnitView(self._corpus, unit)
            table = read(view)
            if table is None:
                num_rows = view.clips(["channel"]).num_rows
                table = pa.table([pa.nulls(num_rows, f.type) for f in kept], schema=kept)
            tables.append(pa.table(table.columns, schema=kept))
        return pa.concat_tables(tables)


def _first_known(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Array:
    """Of each row the first value that is not null."""
    whole = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
    return whole[0] if len(whole) == 1 else pc.coalesce(*whole)


def _rows_only(tables: Iterable[pa.Table]) -> pa.Table:
    """A table of no columns that still counts its rows."""
    total = sum(table.num_rows for table in tables)
    return pa.table({"": pa.nulls(total)}).select([])


def _aliases(corpus: Corpus) -> dict[bytes, bytes]:
    rows = corpus.decisions(SPEAKERS_TABLE, "aliases")
    return dict(zip(rows["alias"].to_pylist(), rows["speaker_id"].to_pylist(), strict=True))


def _layer_owner(corpus: Corpus, name: str) -> _Owner:
    output = layer_output(corpus.clip_set, name)
    mark = corpus.fingerprint(output)
    done = corpus.snapshot.outputs.get(output, {}).get(mark, ())
    schema = UnitView(corpus, done[0]).layer(name).schema if done else pa.schema([])
    return _Owner(output, mark, "layer", schema)


def _decision_schema(corpus: Corpus, name: str) -> pa.Schema | None:
    """Schema of a decision table's first role, where that has a row a clip."""
    head = corpus.decision_table(name)
    role = head.roles[0] if head.roles else ""
    part = next((part for part in head.parts if part.role == role), None)
    if part is None:
        return None
    with open_part(corpus.store, part.path) as file:
        schema = file.schema_arrow
    return schema if "clip_id" in schema.names else None


def _unit_slices(corpus: Corpus, output: str, role: str) -> list[Slice]:
    """Units in plan order, cut at SLICE_ROWS, or at SLICE_UNITS where no compaction counts their rows."""
    path = corpus.snapshot.compacted.get(output, {}).get(corpus.snapshot.current.get(output, ""))
    compaction: Compaction | None = None if path is None else read_compaction(corpus.store, path)
    slices, units, rows = list[Slice](), list[str](), 0
    for unit in corpus.snapshot.units:
        place = compaction.find(role, unit) if compaction else None
        count = SLICE_ROWS // SLICE_UNITS if place is None else place.num_rows
        if units and rows + count > SLICE_ROWS:
            slices.append(Slice(tuple(units)))
            units, rows = [], 0
        units.append(unit)
        rows += count
    return [*slices, Slice(tuple(units))] if units else slices


class PackRows:
    """The documents of a pack's splits, with the split as a column."""

    table = "documents"

    def __init__(self, pack: Pack, split: str | None = None) -> None:
        self.pack, self._split = pack, split
        if split is not None and split not in pack.splits:
            raise RequestError(f"pack {pack.store.uri!r} has no split {split!r}; it has {pack.splits}")
        self.schema = pa.schema([*DOCUMENTS, field("split", pa.string(), "split of the pack"), *_document_derived()])
        self.slices = [part for name in ([split] if split else pack.splits) for part in self._slices_of(name)]

    def __reduce__(self) -> tuple[Callable[..., PackRows], tuple[str, str | None]]:
        return _opened_pack, (self.uri, self._split)

    @property
    def uri(self) -> str:
        return self.pack.store.uri

    def _slices_of(self, split: str) -> list[Slice]:
        with self._file(split) as file:
            return [Slice((split,), number, number + 1) for number in range(file.num_row_groups)]

    def _file(self, split: str) -> pq.ParquetFile:
        return open_part(self.pack.store, f"manifest/{split}.parquet")

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        split = part.units[0]
        stored = [name for name in columns if name in DOCUMENTS.names]
        needs = [*stored, *({"num_samples", *(["key"] if self.pack.taken_keys else [])} - {*stored})]
        with self._file(split) as file:
            table = completed("documents", file.read_row_groups(range(part.start, part.stop), columns=needs, use_threads=False))
        table = self.pack.without_taken(table)
        made = {
            "split": pa.repeat(split, table.num_rows),
            "duration_s": pc.divide(pc.cast(table["num_samples"], pa.float64()), float(self.pack.sample_rate_hz)),
        }
        picked = {name: table[name] if name in stored else made[name] for name in columns}
        return (
            pa.table(picked, schema=pa.schema([self.schema.field(name) for name in columns])) if columns else _rows_only([table])
        )


def _document_derived() -> list[pa.Field]:
    return [field("duration_s", pa.float64(), "seconds of audio; null for a text document")]


@lru_cache(maxsize=4)
def _opened_pack(uri: str, split: str | None) -> PackRows:
    return PackRows(Pack.open(uri), split)


def open_rows(uri: str, table: str | None = None, snapshot: int | None = None) -> Rows:
    """The rows of whatever lies at a URI: a table of a corpus (``clips`` by default), or a pack's documents (of the split ``table``)."""
    from manifests.store import Store

    store = Store(uri)
    if store.exists("pack.json") and not store.exists("corpus.json"):
        return PackRows(Pack.open(uri), table)
    return corpus_rows(Corpus.open(uri, snapshot), table or "clips")
