"""The clips of a corpus, slice by slice: every fact of a clip under one full name, joined by position.

A layer that lacks a unit gives nulls, its status too: audits look at corpora that are not done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.corpus import Corpus, UnitView
from manifests.facts import FactsReader
from manifests.gates import CLIP_COLUMNS, clip_column
from manifests.rows import Slice, rows_only
from manifests.schema import CLIPS, INPUTS, RECORDINGS, field
from manifests.snapshots import INGEST, clips_output, layer_output
from manifests.store import Store
from manifests.tables import open_part
from manifests.unit_rows import CorpusRows

SPEAKERS_TABLE = "speaker_id"
DERIVED = (
    field("duration_s", pa.float64(), "length of the clip"),
    field("speech_share", pa.float64(), "part of the clip in which VAD hears speech"),
    field("overlap_share", pa.float64(), "part of the clip in which a second speaker talks too"),
    field("longest_pause_s", pa.float64(), "longest stretch between two speech spans"),
    field("language", pa.string(), "as the source says, else as the first layer of transcripts (by name) heard it"),
    field("speaker", pa.string(), "speaker_id (hex) where speakers were linked, else source:label as the source says"),
    field("unit", pa.string(), "unit that the recording came with"),
)


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
        return shown_rows(self._corpus, self._units, lambda: self._committed(["channel"])[1])

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
            return rows_only([clips])
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
        now = speaker_aliases(self._corpus)
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


def shown_rows(corpus: Corpus, units: Sequence[str], counts: Callable[[], Sequence[int]]) -> pa.ChunkedArray | None:
    """Bool a clip that the units committed, ``counts`` of each: whether readers see it. None: they see all."""
    masks = [UnitView(corpus, unit).shown_clips() for unit in units]
    if all(mask is None for mask in masks):
        return None
    filled = [pa.chunked_array([pa.repeat(True, n)]) if m is None else m for m, n in zip(masks, counts(), strict=True)]
    return pa.chunked_array([chunk for mask in filled for chunk in mask.chunks], pa.bool_())


def _first_known(columns: Sequence[pa.ChunkedArray | pa.Array]) -> pa.Array:
    """Of each row the first value that is not null."""
    whole = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
    return whole[0] if len(whole) == 1 else pc.coalesce(*whole)


def speaker_aliases(corpus: Corpus) -> dict[bytes, bytes]:
    """Alias -> id that counts now, of the decision table ``speaker_id``. An id that is none of them counts itself."""
    return _aliases(corpus.store.uri, corpus.decision_table(SPEAKERS_TABLE).wholes["aliases"].path)


@lru_cache(maxsize=4)
def _aliases(uri: str, path: str) -> dict[bytes, bytes]:
    """Read once a process: every slice and every unit asks."""
    rows = Store(uri).read_table(path)
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
