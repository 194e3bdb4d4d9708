"""The clips of a corpus as rows of an export: some units are a part, its facts are joined by position.

Rows come through the readers of the snapshot, so what those hide (shadowed, superseded, taken down) never leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from manifests.audio import AudioReader
from manifests.clip_texts import SOURCE, first_texts, text_columns, text_needs
from manifests.conditions import parse_condition
from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.export.row import FACTS, ExportRow, Part, exact_flac, words_in_seconds
from manifests.facts import FactsReader, check_licences
from manifests.open_rows import corpus_rows
from manifests.rows import Slice, resolve

SPLIT = "train"  # a corpus has none; it is the name that a library asks for first
TEXT_FROM = (SOURCE, "asr")
PARTS_A_SLICE = 8  # some 16,000 clips a part, or 40 hours
BATCH_ROWS = 1000  # whose facts are Python objects at a time
PLACE = ("clip_id", "recording_id", "channel", "sample_rate_hz", "start_sample", "end_sample", "language", "speaker", "unit")
RIGHTS = ("source", "licence", "consent", "attribution", "synthesizer")
READ = (*(f"clip.{name}" for name in PLACE), *(f"input.{name}" for name in RIGHTS))
BITS = "recording.stored_bits"
TEXT, ORIGIN = ":text", ":text_source"  # no column of a corpus can have the names


class CorpusReader:
    """Every clip of the current clip set where ``where`` is true, with chosen columns by full names (``manifests.rows``).

    ``text_from`` is as in a pack's recipe: of ``source`` and names of layers the first that has text (``manifests.clip_texts``).
    """

    def __init__(
        self,
        corpus: Corpus,
        columns: Sequence[str] = (),
        text_from: Sequence[str] | None = None,
        where: str | None = None,
    ) -> None:
        self._corpus, self._rows = corpus, corpus_rows(corpus)
        facts = FactsReader(corpus)
        for part in self._rows.slices:
            check_licences(facts.inputs(part.units, ["recording_id", "licence", "uri"]))
        there = [SOURCE, *(name for name in corpus.layers() if f"{name}.text" in self._rows.schema.names)]
        self._text_from = tuple(text_from or (name for name in TEXT_FROM if name in there))
        for name in self._text_from:
            if name not in there:
                raise RequestError(f"text is asked of {name!r}; there are {', '.join(there)}")
        self._columns = list(dict.fromkeys(resolve(self._rows, name) for name in columns))
        self._where = where
        self._condition = None if where is None else parse_condition(where, self._rows, "--where")
        self.schema = pa.schema([*FACTS, *(_readable(self._rows.schema.field(name)) for name in self._columns)])

    @property
    def identity(self) -> dict[str, Any]:
        place = {"corpus_id": self._corpus.corpus_id, "snapshot": self._corpus.snapshot.number}
        return {**place, "columns": self._columns, "text_from": list(self._text_from), "where": self._where}

    def parts(self) -> list[Part]:
        """Some units each: less than a slice, since an interrupted part is done again, audio and all."""
        pieces = []
        for whole in self._rows.slices:
            step = -(-len(whole.units) // PARTS_A_SLICE)
            pieces += [Slice(whole.units[start : start + step]) for start in range(0, len(whole.units), step)]
        return [Part(number, SPLIT, piece) for number, piece in enumerate(pieces)]

    def rows(self, part: Part, *, with_audio: bool) -> Iterator[ExportRow]:
        texts = text_needs(text_columns(self._text_from))
        words = [name for layer in self._text_from if (name := f"{layer}.words") in self._rows.schema.names]
        asked = [] if self._condition is None else self._condition.columns
        table = self._rows.read(part.place, list(dict.fromkeys([*READ, BITS, *texts, *words, *asked, *self._columns])))
        for name, column in zip((TEXT, ORIGIN), first_texts(table, self._text_from), strict=True):
            table = table.append_column(name, column)
        table = table if self._condition is None else table.filter(self._condition.mask(table))
        unit, reader = "", None
        for start in range(0, table.num_rows, BATCH_ROWS):
            for row in table.slice(start, BATCH_ROWS).to_pylist():
                if with_audio and row["clip.unit"] != unit:
                    unit = row["clip.unit"]
                    reader = UnitView(self._corpus, unit).audio()
                yield ExportRow(self._facts(row), None if reader is None else _flac(row, reader))

    def _facts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        rate, start, end = (row[f"clip.{name}"] for name in ("sample_rate_hz", "start_sample", "end_sample"))
        return {
            "id": row["clip.clip_id"].hex(),
            "text": row[TEXT],
            "text_source": row[ORIGIN],
            "words": words_in_seconds(row.get(f"{row[ORIGIN]}.words")),
            "language": row["clip.language"],
            "speaker": row["clip.speaker"],
            **{name: row[f"input.{name}"] for name in RIGHTS},
            "recording_id": row["clip.recording_id"].hex(),
            "channel": row["clip.channel"],
            "start_s": start / rate,
            "duration_s": (end - start) / rate,
            "num_samples": end - start,
            "sample_rate_hz": rate,
            **{name: _shown(row[name]) for name in self._columns},
        }


def _flac(row: Mapping[str, Any], reader: AudioReader) -> bytes:
    rate = row["clip.sample_rate_hz"]
    start, end = row["clip.start_sample"], row["clip.end_sample"]
    return exact_flac(reader.read(row["clip.recording_id"], row["clip.channel"], rate, start, end), rate, row[BITS])


def _readable(column: pa.Field) -> pa.Field:
    """The column as it leaves: bytes as hex. Raises RequestError for bytes inside of lists and structs, e.g. a fingerprint's."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return column.with_type(pa.string())
    if "binary" in str(kind):
        raise RequestError(f"column {column.name!r} is {kind}, and no format has a word for it; leave it out")
    return column


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
