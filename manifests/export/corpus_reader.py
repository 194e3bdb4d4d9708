"""The clips of a corpus as rows of an export: a slice of units is a part, its facts are joined by position.

Rows come through the readers of the snapshot, so what those hide (shadowed, superseded, taken down) never leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.audio import AudioReader
from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.export.row import FACTS, ExportRow, Part, exact_flac, words_in_seconds
from manifests.rows import corpus_rows, resolve
from manifests.schema import ID

SPLIT = "train"  # a corpus has none; it is the name that a library asks for first
TEXT_FROM = ("source", "asr")
BATCH_ROWS = 1000  # whose facts are Python objects at a time
PLACE = ("clip_id", "recording_id", "channel", "sample_rate_hz", "start_sample", "end_sample", "language", "speaker", "unit")
READ = (*(f"clip.{name}" for name in PLACE), *(f"input.{name}" for name in ("source", "licence", "synthesizer", "text")))
BITS = "recording.stored_bits"


class CorpusReader:
    """Every clip of the current clip set, with chosen columns by their full names (``manifests.rows``).

    ``text_from`` is as in a pack's recipe: of ``source`` and names of layers the first that has text. A source's transcript
    speaks of the whole input: it fits only a recording's single clip.
    """

    def __init__(self, corpus: Corpus, columns: Sequence[str] = (), text_from: Sequence[str] | None = None) -> None:
        self._corpus, self._rows = corpus, corpus_rows(corpus)
        self._text_from = tuple(text_from or (name for name in TEXT_FROM if name == "source" or name in corpus.layers()))
        for name in self._text_from:
            if name != "source" and f"{name}.text" not in self._rows.schema.names:
                there = sorted(full.removesuffix(".text") for full in self._rows.schema.names if full.endswith(".text"))
                raise RequestError(f"text is asked of {name!r}; of source and the layers with text there are {', '.join(there)}")
        self._columns = list(dict.fromkeys(resolve(self._rows, name) for name in columns))
        self.schema = pa.schema([*FACTS, *(_readable(self._rows.schema.field(name)) for name in self._columns)])

    @property
    def uri(self) -> str:
        return self._corpus.store.uri

    @property
    def identity(self) -> dict[str, Any]:
        place = {"corpus_id": self._corpus.corpus_id, "snapshot": self._corpus.snapshot.number}
        return {**place, "columns": self._columns, "text_from": list(self._text_from)}

    def parts(self) -> list[Part]:
        return [Part(number, SPLIT, slice_) for number, slice_ in enumerate(self._rows.slices)]

    def rows(self, part: Part, *, with_audio: bool) -> Iterator[ExportRow]:
        heard = [f"{layer}.{name}" for layer in self._text_from if layer != "source" for name in ("text", "words")]
        known = [name for name in heard if name in self._rows.schema.names]
        table = self._rows.read(part.place, list(dict.fromkeys([*READ, BITS, *known, *self._columns])))
        is_whole = _is_whole(table["clip.recording_id"])
        unit, reader = "", None
        for start in range(0, table.num_rows, BATCH_ROWS):
            for place, row in enumerate(table.slice(start, BATCH_ROWS).to_pylist(), start):
                if with_audio and row["clip.unit"] != unit:
                    unit = row["clip.unit"]
                    reader = UnitView(self._corpus, unit).audio()
                yield ExportRow(self._facts(row, is_whole=bool(is_whole[place])), None if reader is None else _flac(row, reader))

    def _facts(self, row: Mapping[str, Any], *, is_whole: bool) -> dict[str, Any]:
        rate, start, end = (row[f"clip.{name}"] for name in ("sample_rate_hz", "start_sample", "end_sample"))
        text, origin = self._text(row, is_whole=is_whole)
        return {
            "id": row["clip.clip_id"].hex(),
            "text": text,
            "text_source": origin,
            "words": words_in_seconds(row.get(f"{origin}.words")),
            "language": row["clip.language"],
            "speaker": row["clip.speaker"],
            **{name: row[f"input.{name}"] for name in ("source", "licence", "synthesizer")},
            "recording_id": row["clip.recording_id"].hex(),
            "channel": row["clip.channel"],
            "start_s": start / rate,
            "duration_s": (end - start) / rate,
            "num_samples": end - start,
            "sample_rate_hz": rate,
            **{name: _shown(row[name]) for name in self._columns},
        }

    def _text(self, row: Mapping[str, Any], *, is_whole: bool) -> tuple[str | None, str | None]:
        """(text, where it is from)."""
        for origin in self._text_from:
            text = (row["input.text"] if is_whole else None) if origin == "source" else row[f"{origin}.text"]
            if text and text.strip():
                return text.strip(), origin
        return None, None


def _is_whole(recordings: pa.ChunkedArray) -> np.ndarray:
    """Bool a clip: it is the only one of its recording. A slice has all clips of a recording, or none."""
    codes = recordings.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.asarray(np.bincount(codes)[codes] == 1)


def _flac(row: Mapping[str, Any], reader: AudioReader) -> bytes:
    rate = row["clip.sample_rate_hz"]
    start, end = row["clip.start_sample"], row["clip.end_sample"]
    return exact_flac(reader.read(row["clip.recording_id"], row["clip.channel"], rate, start, end), rate, row[BITS])


def _readable(column: pa.Field) -> pa.Field:
    """The column as it leaves: ids as hex."""
    return column.with_type(pa.string()) if column.type == ID else column


def _shown(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
