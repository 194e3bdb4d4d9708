"""Tables of a corpus or a pack as DuckDB sees them: streams of slices, of which only the columns that are needed are read.

DuckDB asks whatever it scans for the columns it wants; a table here is an Arrow dataset that answers from ``Rows``, as often as
a statement scans it. Statements reach no file, no network and no setting.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from manifests.errors import RequestError
from manifests.fold import num_threads
from manifests.rows import Rows, Slice, resolve

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "4GB"


def sql_names(rows: Rows) -> dict[str, str]:
    """Name in SQL -> full name: the last part of the name where that means this column, else the full one (``"asr.text"``)."""
    found = {}
    for full in rows.schema.names:
        bare = full.rpartition(".")[2]
        try:
            found[bare if resolve(rows, bare) == full else full] = full
        except RequestError:  # several columns end so, and none is preferred
            found[full] = full
    return found


class StreamedTable(pyarrow.dataset.Dataset):
    """``Rows`` as a dataset that DuckDB scans; ``advance`` is told of every slice read."""

    def __init__(self, rows: Rows, advance: Callable[[], None] = lambda: None) -> None:
        self._rows, self._names, self._advance = rows, sql_names(rows), advance
        self._schema = pa.schema([rows.schema.field(full).with_name(name) for name, full in self._names.items()])

    @property
    def schema(self) -> pa.Schema:
        """Of what SQL sees."""
        return self._schema

    def scanner(self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: Any) -> Any:  # noqa: A002 (DuckDB's name)
        """What DuckDB calls: the rows that meet ``filter``, with ``columns``."""
        wanted = list(self._schema.names if columns is None else columns)
        read = [name for name in self._schema.names if name in wanted or (filter is not None and _names(filter, name))]
        schema = pa.schema([self._schema.field(name) for name in read])
        batches = self._batches(read, schema)
        return pyarrow.dataset.Scanner.from_batches(batches, schema=schema, columns=wanted, filter=filter, use_threads=False)

    def _batches(self, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        full = [self._names[name] for name in names]

        def read(part: Slice) -> pa.Table:
            return self._rows.read(part, full)

        for table in ahead(read, self._rows.slices):
            self._advance()
            yield from pa.table(table.columns, schema=schema).to_batches()


def ahead(read: Callable[[Slice], pa.Table], parts: Sequence[Slice]) -> Iterator[pa.Table]:
    """The slices in order, read by threads, as many beforehand as there are threads."""
    with ThreadPoolExecutor(num_threads()) as pool:
        left, waiting = iter(parts), deque[Future[pa.Table]]()
        waiting.extend(pool.submit(read, part) for part in itertools.islice(left, num_threads()))
        while waiting:
            table = waiting.popleft().result()
            waiting.extend(pool.submit(read, part) for part in itertools.islice(left, 1))
            yield table


@contextmanager
def connected(tables: Mapping[str, Rows], advance: Callable[[], None] = lambda: None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to an empty database that knows the tables, and nothing outside."""
    import duckdb

    with TemporaryDirectory(prefix="stepwell-sql-") as spill:
        config: dict[str, Any] = {
            "threads": num_threads(),
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(config=config) as connection:
            for name, rows in tables.items():
                connection.register(name, StreamedTable(rows, advance))
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            yield connection


def _names(expression: pc.Expression, name: str) -> bool:
    """Whether the expression may read the column. Arrow does not say; a value of the same spelling costs a column."""
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", str(expression)) is not None
