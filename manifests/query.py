"""``manifest query``: SQL over the tables of a corpus or a pack, by DuckDB, in bounded memory.

A full name needs no quotes where it is written with its dots (``asr.text``): it is put into them before DuckDB reads it.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from manifests.console import progress
from manifests.errors import RequestError, WorkError
from manifests.rows import Rows
from manifests.sql_tables import connected, sql_names
from manifests.store import place_of

BATCH_ROWS = 65_536
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Answer:
    """The first rows of a result; ``has_more`` where there are others."""

    table: pa.Table
    has_more: bool


def query(tables: Mapping[str, Rows], sql: str, limit: int) -> Answer:
    """The first ``limit`` rows that a SELECT gives. Raises RequestError where it is none, or DuckDB refuses it."""
    with _result(tables, sql) as reader:
        kept, count = [reader.schema.empty_table()], 0
        for batch in reader:
            kept.append(pa.Table.from_batches([batch]))
            count += batch.num_rows
            if count > limit:
                break
    return Answer(pa.concat_tables(kept).slice(0, limit), count > limit)


def query_to(tables: Mapping[str, Rows], sql: str, out: str) -> int:
    """Write all rows that a SELECT gives to a .parquet or .csv file at any URI; returns how many there are.

    Raises RequestError as ``query`` does, or where the file ends otherwise; then nothing was written.
    """
    if not out.endswith(SUFFIXES):
        raise RequestError(f"--out {out!r} ends in neither {' nor '.join(SUFFIXES)}; the ending says what is written")
    store, name = place_of(out)
    num_rows = 0
    with tempfile.TemporaryDirectory() as drafts:
        path = os.path.join(drafts, name)
        with _result(tables, sql) as reader, _writer(path, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        with open(path, "rb") as file:
            store.write_file(name, file)
    return num_rows


def _writer(path: str, schema: pa.Schema) -> pq.ParquetWriter | pa.csv.CSVWriter:
    if path.endswith(".parquet"):
        return pq.ParquetWriter(path, schema, compression="zstd")
    nested = [f.name for f in schema if pa.types.is_nested(f.type) or pa.types.is_binary(f.type)]
    if nested:
        raise RequestError(
            f"column {nested[0]!r} cannot be written as CSV; leave it out, take hex({nested[0]}), or write .parquet"
        )
    return pa.csv.CSVWriter(path, schema)


@contextmanager
def _result(tables: Mapping[str, Rows], sql: str) -> Iterator[pa.RecordBatchReader]:
    import duckdb

    parsed = _parsed(sql)
    scans = [len(tables[node["table_name"]].slices) for node in _nodes(parsed) if node.get("table_name") in tables]
    with progress() as bars:
        bar = bars.task("query", sum(scans), "slices")

        def advance() -> None:
            if bar.done < bar.total:  # a common table expression may be scanned again
                bar.advance()

        with connected(tables, advance) as connection:
            try:
                yield connection.sql(quoted(sql, parsed, tables)).to_arrow_reader(BATCH_ROWS)
            except duckdb.OutOfMemoryException as error:
                raise WorkError(f"query: {_one_line(error)}; narrow it, or group before you join") from error
            except duckdb.Error as error:
                raise RequestError(f"query: {_one_line(error)}; the tables are {', '.join(tables)}") from error


def _parsed(sql: str) -> dict[str, Any]:
    """The syntax tree of one SELECT. Raises RequestError where it is none."""
    import duckdb

    with duckdb.connect() as connection:
        row = connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    parsed: dict[str, Any] = json.loads(row[0]) if row else {}
    if parsed.get("error"):
        raise RequestError(f"query: {' '.join(parsed['error_message'].split())}; write one SELECT")
    if len(parsed["statements"]) != 1:
        raise RequestError(f"query: there are {len(parsed['statements'])} statements; write one SELECT")
    return parsed


def quoted(sql: str, parsed: Mapping[str, Any], tables: Mapping[str, Rows]) -> str:
    """The SELECT with full names as SQL writes them: ``asr.text`` as ``"asr.text"``, ``clip.duration_s`` as ``duration_s``."""
    full = {full: name for rows in tables.values() for name, full in sql_names(rows).items() if "." in full}
    aliases = {node.get("alias") for node in _nodes(parsed)} | {*tables}
    data = sql.encode()  # places are counted in bytes
    found = [node for node in _nodes(parsed) if node.get("class") == "COLUMN_REF" and node["column_names"][0] not in aliases]
    for node in sorted(found, key=lambda node: -int(node["query_location"])):
        name = full.get(".".join(node["column_names"]))
        if name is not None:
            begin = int(node["query_location"])
            end = begin + int(node["query_location_length"])
            data = data[:begin] + f'"{name}"'.encode() + data[end:]
    return data.decode()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON value."""
    if isinstance(tree, dict):
        yield tree
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    yield from itertools.chain.from_iterable(map(_nodes, inner))


def _one_line(error: Exception) -> str:
    """What DuckDB says, without the picture of the statement."""
    return " ".join(str(error).partition("\n\nLINE")[0].split())
