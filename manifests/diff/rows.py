"""Rows that differ between two tables, found in bounded memory: side by side where the rows are the same, else matched by key.

Values of every type are compared by DuckDB's hashes: 32 bits a column in a match (a change
goes unseen with a chance of 2^-32), 64 bits side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from manifests.console import progress
from manifests.diff.alike import Overlap
from manifests.rows import Rows, Slice
from manifests.selection import Length
from manifests.sql_tables import connected, sql_names

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 5
TOP_VALUES = 20


@dataclass(frozen=True)
class Comparison:
    """What is compared: rows by ``key``, in ``columns``; of ``moved`` columns the values are told too."""

    key: str
    columns: tuple[str, ...]
    moved: tuple[str, ...]
    length: Length | None


class PartOfRows:
    """Some slices of a table."""

    def __init__(self, rows: Rows, slices: Sequence[Slice]) -> None:
        self.uri, self.table, self.schema, self.slices = rows.uri, rows.table, rows.schema, list(slices)
        self._rows = rows

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        return self._rows.read(part, columns)


class SideBySide:
    """The rows that differ between two tables whose rows are the same, as ``Rows`` in the columns of the table ``differing``."""

    def __init__(self, a: Rows, b: Rows, overlap: Overlap, comparison: Comparison) -> None:
        self.uri, self.table = a.uri, a.table
        self._a, self._b, self._comparison = a, b, comparison
        self._columns = overlap.alike
        self.slices = [part for part, columns in overlap.alike.items() if columns]
        flags = [pa.field(f"c{i}", pa.bool_()) for i in range(len(comparison.columns))]
        values = [pa.field(f"m{i}_{side}", pa.string()) for i in range(len(comparison.moved)) for side in "ab"]
        key = a.schema.field(comparison.key).type
        self.schema = pa.schema([pa.field("k", key), pa.field("s", pa.float64()), *flags, *values])

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        given, compared = self._comparison, self._columns[part]
        length = given.length.columns if given.length else ()
        first = self._a.read(part, list(dict.fromkeys((given.key, *length, *compared))))
        second = self._b.read(part, compared)
        before, after = hashes(first, compared), hashes(second, compared)
        differs = {name: before[name] != after[name] for name in compared}
        rows = pa.array(np.logical_or.reduce(list(differs.values())))
        count = first.num_rows
        made: dict[str, Any] = {"k": first[given.key]}
        made["s"] = given.length.seconds(first) if given.length else pa.nulls(count, pa.float64())
        for i, name in enumerate(given.columns):
            made[f"c{i}"] = differs.get(name, np.zeros(count, bool))
        for i, name in enumerate(given.moved):
            for side, table in (("a", first), ("b", second)):
                made[f"m{i}_{side}"] = table[name] if name in compared else pa.nulls(count, pa.string())
        found = pa.table(made).filter(rows).select(list(columns))
        return found.cast(pa.schema([self.schema.field(name) for name in columns]))


def hashes(table: pa.Table, names: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[np.uint64]]]:
    """uint64 a row, of each column."""
    import duckdb

    given = table.select(list(names)).rename_columns([f"v{i}" for i in range(len(names))])
    made_of = [f"{_hash(f'v{i}', f.type)} AS v{i}" for i, f in enumerate(given.schema)]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", given)
        made = connection.execute(f"SELECT {', '.join(made_of)} FROM given").fetchnumpy()
    return {name: np.asarray(made[f"v{i}"]) for i, name in enumerate(names)}


def match(comparison: Comparison, a: Rows, b: Rows) -> str:
    """The SELECT of the rows that differ between the tables ``a`` and ``b``, in the columns of ``differing`` with ``kind`` before."""
    flags = [f"a.h{i} <> b.h{i} AS c{i}" for i in range(len(comparison.columns))]
    values = [f"{side}.m{i} AS m{i}_{side}" for i in range(len(comparison.moved)) for side in "ab"]
    changed = " OR ".join(f"a.h{i} <> b.h{i}" for i in range(len(comparison.columns))) or "false"
    return f"""
        WITH a AS ({_hashed(comparison, a, "a")}), b AS ({_hashed(comparison, b, "b")})
        SELECT CASE WHEN a.k IS NULL THEN 'added' WHEN b.k IS NULL THEN 'removed' ELSE 'changed' END AS kind,
            coalesce(a.k, b.k) AS k, coalesce(b.s, a.s) AS s, {", ".join([*flags, *values]) or "1 AS nothing"}
        FROM a FULL OUTER JOIN b ON a.k = b.k WHERE a.k IS NULL OR b.k IS NULL OR {changed}"""


def _hashed(comparison: Comparison, rows: Rows, table: str) -> str:
    names = {full: f'"{name}"' for name, full in sql_names(rows).items()}
    kinds = [rows.schema.field(full).type for full in comparison.columns]
    values = [
        f"({_hash(names[full], kind)} % 4294967296)::UINTEGER AS h{i}"
        for i, (full, kind) in enumerate(zip(comparison.columns, kinds, strict=True))
    ]
    moved = [f"{names[full]}::VARCHAR AS m{i}" for i, full in enumerate(comparison.moved)]
    return f"SELECT {names[comparison.key]} AS k, {_seconds(comparison.length, names)} AS s, {', '.join([*values, *moved]) or 1} FROM {table}_rows"


def _hash(name: str, kind: pa.DataType) -> str:
    """Of lists and structs the hash of their text: DuckDB hashes ``[]``, ``[NULL]`` and NULL alike, and ``[0]`` to 0."""
    return f"hash({name}::VARCHAR)" if pa.types.is_nested(kind) else f"hash({name})"


def _seconds(length: Length | None, names: dict[str, str]) -> str:
    if length is None:
        return "NULL::DOUBLE"
    first, *others = (names[full] for full in length.columns)
    if not others:
        return first
    *starts, rate = others
    return f"({first}{' - '.join(['', *starts])})::DOUBLE / {rate}"


def compare(a: Rows, b: Rows, found: Overlap, comparison: Comparison) -> dict[str, Any]:
    """Rows and hours that were added, removed and changed, by changed column and by value, and the first keys of each."""
    rest_a, rest_b = PartOfRows(a, found.rest_a), PartOfRows(b, found.rest_b)
    tables: dict[str, Rows] = {"a_rows": rest_a, "b_rows": rest_b, "side_by_side": SideBySide(a, b, found, comparison)}
    with progress() as bars:
        bar = bars.task("compare", sum(len(rows.slices) for rows in tables.values()) or 1, "slices")
        with connected(tables, bar.advance) as connection:
            connection.execute(f"CREATE TEMP TABLE differing AS {match(comparison, rest_a, rest_b)}")
            connection.execute("INSERT INTO differing BY NAME SELECT 'changed' AS kind, * FROM side_by_side")
            return figures(connection, comparison)


def figures(connection: duckdb.DuckDBPyConnection, comparison: Comparison) -> dict[str, Any]:
    """What the table ``differing`` (kind, k, s, c0…, m0_a, m0_b, …) says."""

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return list(connection.execute(sql).fetchall())

    kinds = {
        kind: {"num_rows": num, "hours": hours}
        for kind, num, hours in rows("SELECT kind, count(*), sum(s) / 3600 FROM differing GROUP BY 1")
    }
    nothing = {"num_rows": 0, "hours": None if comparison.length is None else 0.0}
    columns = []
    for i, name in enumerate(comparison.columns):
        num, hours = rows(f"SELECT count(*), sum(s) / 3600 FROM differing WHERE c{i}")[0]
        columns += [{"column": name, "num_rows": num, "hours": hours}] if num else []
    moved = []
    for i, name in enumerate(comparison.moved):
        found = rows(
            f"SELECT kind, m{i}_a, m{i}_b, count(*), sum(s) / 3600 AS h FROM differing "
            f"WHERE m{i}_a IS DISTINCT FROM m{i}_b GROUP BY ALL ORDER BY h DESC NULLS LAST, 4 DESC, 1, 2, 3 LIMIT {TOP_VALUES}"
        )
        moved += [{"column": name, "kind": kind, "from": a, "to": b, "num_rows": num, "hours": h} for kind, a, b, num, h in found]
    examples = {
        kind: [
            key.hex() if isinstance(key, bytes) else key
            for (key,) in rows(f"SELECT k FROM differing WHERE kind = '{kind}' ORDER BY k LIMIT {EXAMPLES}")
        ]
        for kind in ("added", "removed", "changed")
    }
    return {
        **{kind: kinds.get(kind, nothing) for kind in ("added", "removed", "changed")},
        "columns": sorted(columns, key=lambda row: -row["num_rows"]),
        "moved": moved,
        "examples": examples,
    }
