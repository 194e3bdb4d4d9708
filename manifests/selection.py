"""Rows of a table that meet a condition: how many and how long they are, the first of them, or their groups.

Two passes, each in the memory of a few slices: one over the columns that decide, one over the slices that hold the rows
to be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.conditions import Condition
from manifests.errors import RequestError
from manifests.fold import fold
from manifests.rows import Rows

MAX_GROUPS = 1_000_000
ROW = ":row"  # place of a row in its table; no column can have the name
SECONDS = ":seconds"
COUNTED = ("rows", "hours")  # what grouped output has besides the groups


@dataclass(frozen=True)
class Length:
    """How the seconds of a row follow from its columns: samples ``(end - start) / rate``, or a column that has them."""

    columns: tuple[str, ...]

    def seconds(self, table: pa.Table) -> pa.ChunkedArray:
        """Float64 a row; null where there is no audio."""
        first, *others = (table[name] for name in self.columns)
        if not others:
            return first
        *starts, rate = others
        return pc.divide(pc.cast(pc.subtract(first, starts[0]) if starts else first, pa.float64()), rate)


def length_of(rows: Rows) -> Length | None:
    """None of a table whose rows are no stretches of audio."""
    candidates = (
        ("clip.duration_s",),
        ("duration_s",),
        ("num_samples", "sample_rate_hz"),
        ("end_sample", "start_sample", "sample_rate_hz"),
    )
    return next((Length(names) for names in candidates if {*names} <= {*rows.schema.names}), None)


@dataclass(frozen=True)
class Sorting:
    """Rows by a column; nulls come last."""

    column: str
    is_falling: bool = False


@dataclass(frozen=True)
class Selected:
    """``num_rows`` and ``hours`` are of all that met the condition; ``table`` has as many of them as were asked for."""

    num_rows: int
    hours: float | None
    table: pa.Table


def select(
    rows: Rows,
    where: Condition | None,
    columns: Sequence[str],
    sort: Sequence[Sorting] = (),
    limit: int = 10,
    scheduler: str | None = None,
) -> Selected:
    """The first ``limit`` rows that meet the condition, in their order or as sorted, with ``columns`` (full names)."""
    found = fold(rows, [Matches(where, length_of(rows), tuple(sort), limit)], scheduler, rows.table)[0]
    return Selected(found.num_matches, found.hours, _rows_at(rows, found.places, found.slice_rows, columns))


def select_groups(
    rows: Rows,
    where: Condition | None,
    by: Sequence[str],
    sort: Sequence[Sorting] = (),
    limit: int = 10,
    scheduler: str | None = None,
) -> Selected:
    """Rows and hours of each group of equal values, by default the longest first. ``sort`` names groups or COUNTED.

    Raises RequestError where a column cannot be grouped by, or there are more than MAX_GROUPS.
    """
    for name in by:
        if pa.types.is_nested(rows.schema.field(name).type):
            raise RequestError(f"column {name!r} holds {rows.schema.field(name).type}; group by a column of single values")
    length = length_of(rows)
    found = fold(rows, [Groups(where, length, tuple(by))], scheduler, rows.table)[0]
    table = found.table
    default = Sorting("rows" if length is None else "hours", is_falling=True)
    shown = _sorted(table, sort or (default, *map(Sorting, by))).slice(0, limit)
    hours = None if length is None else float(pc.sum(table["hours"]).as_py() or 0.0)
    return Selected(int(pc.sum(table["rows"]).as_py() or 0), hours, shown)


class Matches:
    """Tally: rows that meet a condition, their seconds, and the places of the first of them."""

    def __init__(self, where: Condition | None, length: Length | None, sort: tuple[Sorting, ...], limit: int) -> None:
        self._where, self._length, self._sort, self._limit = where, length, sort, limit
        self.slice_rows: list[int] = []
        self.num_matches, self._seconds = 0, 0.0
        self._kept: pa.Table | None = None  # ROW and the columns that are sorted by

    @property
    def columns(self) -> Sequence[str]:
        return _columns_of(self._where, self._length, [sorting.column for sorting in self._sort])

    @property
    def hours(self) -> float | None:
        return None if self._length is None else self._seconds / 3600

    @property
    def places(self) -> list[int]:
        """Of the rows to be shown, counted from the first row of the table."""
        return [] if self._kept is None else list(self._kept[ROW].to_pylist())

    def add(self, table: pa.Table) -> None:
        begin = sum(self.slice_rows)
        self.slice_rows.append(table.num_rows)
        places = pa.array(np.arange(begin, begin + table.num_rows))
        found = table.append_column(ROW, places)
        if self._length is not None:
            found = found.append_column(SECONDS, self._length.seconds(table))
        if self._where is not None:
            found = found.filter(self._where.mask(table))
        self.num_matches += found.num_rows
        self._seconds += float(pc.sum(found[SECONDS]).as_py() or 0.0) if self._length is not None else 0.0
        self._keep(found.select([ROW, *dict.fromkeys(sorting.column for sorting in self._sort)]))

    def merge(self, other: Self) -> None:
        if other._kept is not None:
            moved = pc.add(other._kept[ROW], sum(self.slice_rows))
            self._keep(other._kept.set_column(0, ROW, moved))
        self.slice_rows += other.slice_rows
        self.num_matches += other.num_matches
        self._seconds += other._seconds

    def _keep(self, table: pa.Table) -> None:
        together = table if self._kept is None else pa.concat_tables([self._kept, table])
        self._kept = (_sorted(together, self._sort) if self._sort else together).slice(0, self._limit).combine_chunks()


class Groups:
    """Tally: rows and hours of each group of equal values."""

    def __init__(self, where: Condition | None, length: Length | None, by: tuple[str, ...]) -> None:
        self._where, self._length, self._by = where, length, by
        self._parts: list[pa.Table] = []

    @property
    def columns(self) -> Sequence[str]:
        return _columns_of(self._where, self._length, self._by)

    @property
    def table(self) -> pa.Table:
        """The groups, then ``rows`` and, where rows have a length, ``hours``."""
        self._merge_parts()
        if not self._parts:
            return pa.table({name: pa.array([], pa.string()) for name in self._by} | {"rows": [], "hours": []})
        return self._parts[0]

    def add(self, table: pa.Table) -> None:
        made = table.select(list(dict.fromkeys(self._by))).append_column("rows", pa.repeat(1, table.num_rows))
        if self._length is not None:
            made = made.append_column("hours", pc.divide(self._length.seconds(table), 3600.0))
        self._parts.append(self._grouped(made if self._where is None else made.filter(self._where.mask(table))))
        if len(self._parts) > 8:
            self._merge_parts()

    def merge(self, other: Self) -> None:
        self._parts += other._parts
        self._merge_parts()

    def _merge_parts(self) -> None:
        if len(self._parts) > 1:
            self._parts = [self._grouped(pa.concat_tables(self._parts))]
        if self._parts and self._parts[0].num_rows > MAX_GROUPS:
            raise RequestError(
                f"{' and '.join(self._by)} make more than {MAX_GROUPS:,} groups; narrow them with --where, or ask `manifest query`"
            )

    def _grouped(self, table: pa.Table) -> pa.Table:
        sums = [name for name in COUNTED if name in table.column_names]
        names = [name for name in table.column_names if name not in sums]
        grouped = table.group_by(names, use_threads=False).aggregate([(name, "sum") for name in sums])
        return grouped.rename_columns([name.removesuffix("_sum") if name not in names else name for name in grouped.column_names])


def _columns_of(where: Condition | None, length: Length | None, others: Sequence[str]) -> list[str]:
    read = (*(where.columns if where else ()), *(length.columns if length else ()), *others)
    return list(dict.fromkeys(read))


def _sorted(table: pa.Table, sort: Sequence[Sorting]) -> pa.Table:
    keys = [(sorting.column, "descending" if sorting.is_falling else "ascending") for sorting in sort]
    try:
        return table.take(pc.sort_indices(table, sort_keys=keys))
    except (pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise RequestError(f"rows cannot be sorted by {', '.join(s.column for s in sort)}: {error}") from error


def _rows_at(rows: Rows, places: Sequence[int], slice_rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Rows by their places in the table, in the order of ``places``."""
    empty = pa.schema([rows.schema.field(name) for name in columns]).empty_table()
    if not places:
        return empty
    begins = np.cumsum([0, *slice_rows])
    asked = np.asarray(places)
    holders = np.searchsorted(begins, asked, side="right") - 1
    tables, order = [empty], list[np.ndarray[Any, Any]]()
    for number in np.unique(holders):
        here = np.flatnonzero(holders == number)
        tables.append(rows.read(rows.slices[number], columns).take(pa.array(asked[here] - begins[number])))
        order.append(here)
    return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
