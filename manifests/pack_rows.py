"""The documents of a pack, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.earlier_tables import completed
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.rows import Slice, rows_only
from manifests.schema import DOCUMENTS, field
from manifests.tables import open_part


class PackRows:
    """The documents of a pack's splits, with the split as a column."""

    table = "documents"

    def __init__(self, pack: Pack, split: str | None = None) -> None:
        self.pack, self._split = pack, split
        if split is not None and split not in pack.splits:
            raise RequestError(f"pack {pack.store.uri!r} has no split {split!r}; it has {pack.splits}")
        self.schema = pa.schema([*DOCUMENTS, field("split", pa.string(), "split of the pack"), *_document_derived()])
        self.slices = [part for name in ([split] if split else pack.splits) for part in self._slices_of(name)]

    def __reduce__(self) -> tuple[Callable[..., PackRows], tuple[str, str | None]]:
        from manifests.open_rows import reopened_pack

        return reopened_pack, (self.uri, self._split)

    @property
    def uri(self) -> str:
        return self.pack.store.uri

    def _slices_of(self, split: str) -> list[Slice]:
        with self._file(split) as file:
            return [Slice((split,), number, number + 1) for number in range(file.num_row_groups)]

    def _file(self, split: str) -> pq.ParquetFile:
        return open_part(self.pack.store, f"manifest/{split}.parquet")

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        split = part.units[0]
        stored = [name for name in columns if name in DOCUMENTS.names]
        needs = [*stored, *({"num_samples", *(["key"] if self.pack.taken_keys else [])} - {*stored})]
        with self._file(split) as file:
            table = completed("documents", file.read_row_groups(range(part.start, part.stop), columns=needs, use_threads=False))
        table = self.pack.without_taken(table)
        made = {
            "split": pa.repeat(split, table.num_rows),
            "duration_s": pc.divide(pc.cast(table["num_samples"], pa.float64()), float(self.pack.sample_rate_hz)),
        }
        picked = {name: table[name] if name in stored else made[name] for name in columns}
        return (
            pa.table(picked, schema=pa.schema([self.schema.field(name) for name in columns])) if columns else rows_only([table])
        )


def _document_derived() -> list[pa.Field]:
    return [field("duration_s", pa.float64(), "seconds of audio; null for a text document")]
