"""The rows of decision tables, and of every table by the name that a person gives it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.open_rows import open_rows
from manifests.packs import is_pack
from manifests.rows import Rows, Slice
from manifests.tables import open_part
from manifests.unit_rows import INGESTED


class DecisionRows:
    """A table behind a decision table: that of the whole corpus by row groups, or that of the units, a unit at a time."""

    def __init__(self, corpus: Corpus, name: str, role: str | None = None) -> None:
        """By default the first role. Raises RequestError naming what there is."""
        head = corpus.decision_table(name)
        self._role = role or head.roles[0]
        if self._role not in head.roles:
            raise RequestError(f"decision table {name!r} has no {self._role!r}; it has {', '.join(head.roles)}")
        self.corpus, self._name, self._head = corpus, name, head
        self._whole = head.wholes.get(self._role)
        path = self._whole.path if self._whole else next(part.path for part in head.parts if part.role == self._role)
        with self._file(path) as file:
            self._schema = file.schema_arrow.remove_metadata()
            num_groups = file.num_row_groups
        if self._whole:
            self.slices = [Slice((), number, number + 1) for number in range(num_groups)]
        else:
            self.slices = [Slice((unit,)) for unit in corpus.snapshot.units if head.find(self._role, unit, corpus.snapshot)]

    def __reduce__(self) -> tuple[Callable[..., DecisionRows], tuple[str, int, str, str]]:
        return _opened, (self.uri, self.corpus.snapshot.number, self._name, self._role)

    @property
    def uri(self) -> str:
        return self.corpus.store.uri

    @property
    def table(self) -> str:
        return f"table:{self._name}/{self._role}"

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        if self._whole:
            read = self.corpus.deciding(list(columns))
            with self._file(self._whole.path) as file:
                rows = file.read_row_groups(range(part.start, part.stop), columns=read, use_threads=False)
            return self.corpus.shown_decisions(self._name, rows, list(columns))
        return UnitView(self.corpus, part.units[0]).decisions(self._name, self._role, list(columns))

    def _file(self, path: str) -> pq.ParquetFile:
        return open_part(self.corpus.store, path)


@lru_cache(maxsize=4)
def _opened(uri: str, snapshot: int, name: str, role: str) -> DecisionRows:
    return DecisionRows(Corpus.open(uri, snapshot), name, role)


def named_rows(uri: str, table: str | None = None, snapshot: int | None = None) -> Rows:
    """``manifests.open_rows.open_rows``, and ``table:NAME`` or ``table:NAME/ROLE`` of a corpus besides."""
    kind, _, name = (table or "").partition(":")
    if kind != "table" or is_pack(uri):
        return open_rows(uri, table, snapshot)
    table_name, _, role = name.partition("/")
    return DecisionRows(Corpus.open(uri, snapshot), table_name, role or None)


def table_names(corpus: Corpus) -> list[str]:
    """Names of all tables of a corpus as ``--table`` takes them."""
    current, tables = corpus.snapshot.current, corpus.snapshot.tables
    segmenters = [output.removeprefix("spans/") for output in sorted(current) if output.startswith("spans/")]
    roles = [f"table:{table}/{role}" for table in sorted(tables) for role in corpus.decision_table(table).roles]
    spans = [f"{kind}:{name}" for name in segmenters for kind in ("spans", "failures")]
    return ["clips", *INGESTED, *spans, *(f"layer:{layer}" for layer in corpus.layers()), *roles]


def all_rows(uri: str, snapshot: int | None = None) -> dict[str, Rows]:
    """Every table of what lies at the URI, by a name that SQL can write: ``clips``, ``spans_vad``, ``speaker_id_speakers``."""
    if is_pack(uri):
        return {"documents": open_rows(uri)}
    corpus = Corpus.open(uri, snapshot)
    number = corpus.snapshot.number
    names = [name for name in table_names(corpus) if not name.startswith("layer:")]  # layers are columns of clips
    return {re.sub(r"\W", "_", name.removeprefix("table:")): named_rows(uri, name, number) for name in names}
