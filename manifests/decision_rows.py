"""The rows of decision tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.rows import Slice
from manifests.tables import open_part


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
