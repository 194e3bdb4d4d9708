"""JSONL and Parquet: rows that name audio files, or rows that hold the audio itself (Hugging Face's ``{bytes, path}``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import RequestError
from manifests.remote import os_errors, refusal
from pipeline.columns import AUDIO_COLUMNS, FACTS, ColumnMap, facts_of
from pipeline.inputs import Input, beside, container_version, file_input, folder_of, uri_of
from pipeline.places import Place, look_up

BLOCK_BYTES = 1 << 20
ROWS_AT_ONCE = 4096


def list_jsonl(fs: Any, info: dict[str, Any], columns: ColumnMap) -> list[Input]:
    """The files that a JSONL manifest names, with their facts.

    Raises RequestError naming the line: no object, no audio, a file that is not there, or (without a mapping) a key that
    is no fact; and for a mapped column that no line has.
    """
    path, manifest = info["name"], f"manifest {uri_of(fs, info['name'])!r}"
    try:
        with os_errors():
            data = fs.cat_file(path)
    except OSError as error:
        raise refusal(manifest, error) from error
    rows = [(f"{manifest} line {number}", row) for number, row in read_jsonl(data, path)]
    available = {name for _, row in rows for name in row}
    columns.check(available, manifest)
    if not columns.given:
        for what, row in rows:
            if unread := columns.unread(row):
                raise RequestError(
                    f"{what}: unknown keys {unread}; facts are {', '.join(FACTS)}, and --column FACT=COLUMN maps other names"
                )
    return _named_files(fs, path, rows, available, columns)


def list_parquet(fs: Any, info: dict[str, Any], columns: ColumnMap, known: frozenset[tuple[str, str]]) -> list[Input] | None:
    """The inputs of a Parquet table; None when its rows hold audio and ``known`` has this version of it.

    Raises RequestError: no Parquet, a mapped column or one of audio that is missing, a file that is not there.
    """
    path, uri, version = info["name"], uri_of(fs, info["name"]), container_version(info)
    if (uri, version) in known:
        return None
    what = f"table {uri!r}"
    try:
        with os_errors(), fs.open(path, "rb", block_size=BLOCK_BYTES) as source:
            file = pq.ParquetFile(source, pre_buffer=False)
            schema = file.schema_arrow
            columns.check(schema.names, what)
            columns.tell_unread(schema.names, what)
            audio = audio_column(schema, columns, what)
            read = list(columns.taken(schema.names).values())
            if pa.types.is_struct(schema.field(audio).type):
                return list(_embedded(file, audio, uri, version, columns, folder_of(fs, path)))
            batches = file.iter_batches(ROWS_AT_ONCE, columns=list({audio, *read}), use_threads=False)
            rows = [row for batch in batches for row in batch.to_pylist()]
    except pa.ArrowInvalid as error:
        raise RequestError(f"{what} is not Parquet: {' '.join(str(error).split())}; write it again") from error
    except OSError as error:
        raise refusal(what, error) from error
    named = [(f"{what} row {number}", row) for number, row in enumerate(rows)]
    return _named_files(fs, path, named, schema.names, columns)


def audio_column(schema: pa.Schema, columns: ColumnMap, what: str) -> str:
    """Name of the column of the audio: the mapped one, else one of our names, else the only embedded one.

    Raises RequestError when there is none.
    """
    embedded = [f.name for f in schema if is_embedded(f.type)]
    named = columns.uri or next((name for name in (*embedded, *AUDIO_COLUMNS) if name in schema.names), None)
    if named is None:
        raise RequestError(f"{what} has no column of audio; it has {', '.join(schema.names)}: --column uri=COLUMN names it")
    kind = schema.field(named).type
    if not (is_embedded(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise RequestError(f"{what}: column {named!r} is {kind}; audio is addresses, or embedded {{bytes, path}}")
    return named


def is_embedded(kind: pa.DataType) -> bool:
    """Whether a column of this type holds encoded audio: a struct with ``bytes``."""
    return pa.types.is_struct(kind) and any(kind.field(i).name == "bytes" for i in range(kind.num_fields))


def row_input(container: str, version: str, column: str, row: int, num_bytes: int, facts: dict[str, str]) -> Input:
    """Audio in a row of a table or dataset."""
    member = f"{column}/{row}"
    return Input(f"{container}#{member}", num_bytes, version, facts, member)


def _embedded(file: pq.ParquetFile, audio: str, uri: str, version: str, columns: ColumnMap, folder: str) -> Iterator[Input]:
    """A row's size is the mean of its row group: only the footer and the columns of facts are read."""
    taken = columns.taken(file.schema_arrow.names)
    first = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        leaves = (group.column(i) for i in range(group.num_columns))
        num_bytes = next(leaf.total_uncompressed_size for leaf in leaves if leaf.path_in_schema == f"{audio}.bytes")
        mean = num_bytes // max(1, group.num_rows)
        rows: Iterable[Mapping[str, Any]] = [{}] * group.num_rows
        if taken:
            rows = file.read_row_group(number, columns=list(taken.values()), use_threads=False).to_pylist()
        for row, values in enumerate(rows, first):
            yield row_input(uri, version, audio, row, mean, facts_of(values, taken, uri, folder, f"table {uri!r} row {row}"))
        first += group.num_rows


def _named_files(
    fs: Any, path: str, rows: list[tuple[str, dict[str, Any]]], available: Iterable[str], columns: ColumnMap
) -> list[Input]:
    """The files that rows name; each row comes with how errors call it."""
    folder, origin = folder_of(fs, path), uri_of(fs, path)
    audio = [columns.uri] if columns.uri else list(AUDIO_COLUMNS)
    places = []
    for what, row in rows:
        place = next((row[name] for name in audio if row.get(name)), None)
        if not isinstance(place, str):
            raise RequestError(f"{what}: no {' or '.join(f'`{name}`' for name in audio)}; each row names one audio file")
        places.append(Place(beside(folder, place), what))
    taken = columns.taken(set(available))
    return [
        file_input(found.fs, found.info, facts_of(row, taken, origin, folder, what))
        for found, (what, row) in zip(look_up(places), rows, strict=True)
    ]


def text_of(data: bytes, what: str) -> str:
    """UTF-8 bytes as text, without the mark that some editors begin it with. Raises RequestError naming ``what`` for others."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 at byte {error.start}; convert it") from error


def read_jsonl(data: bytes, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not empty. Raises RequestError naming the first line that is no object."""
    # Not splitlines: it also cuts at U+2028 and U+0085, which JSON strings may hold.
    for number, line in enumerate(text_of(data, repr(what)).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise RequestError(f"{what!r} line {number} is not JSON: {error}; each line is one object") from error
        if not isinstance(row, dict):
            raise RequestError(f"{what!r} line {number} holds {type(row).__name__}; each line is one object")
        yield number, row
