"""The documents of a pack, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.rows import Slice, rows_only
from manifests.schema import DOCUMENTS, field
from manifests.tables import open_part
from manifests.turns import DERIVED, derived, stored_paths

DURATION = field("duration_s", pa.float64(), "seconds of audio of all turns; null without audio")


class PackRows:
    """The documents of a pack's splits, with what follows from their turns, and the split as a column."""

    table = "documents"

    def __init__(self, pack: Pack, split: str | None = None) -> None:
        self.pack, self._split = pack, split
        if split is not None and split not in pack.splits:
            raise RequestError(f"pack {pack.store.uri!r} has no split {split!r}; it has {pack.splits}")
        self.schema = pa.schema([*DOCUMENTS, *DERIVED, field("split", pa.string(), "split of the pack"), DURATION])
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
        made = [name for name in columns if name in DERIVED.names]
        needs = [*stored, *({"num_samples", *(["key"] if self.pack.taken_keys else [])} - {*stored})]
        if "turns" not in stored:
            needs += dict.fromkeys(path for name in made for path in stored_paths(name))
        with self._file(split) as file:
            table = file.read_row_groups(range(part.start, part.stop), columns=needs, use_threads=False)
        table = self.pack.without_taken(table)
        found = {name: table[name] for name in stored} | {name: derived(table["turns"], name) for name in made}
        found["split"] = pa.repeat(split, table.num_rows)
        found["duration_s"] = pc.divide(pc.cast(table["num_samples"], pa.float64()), float(self.pack.sample_rate_hz))
        if not columns:
            return rows_only([table])
        return pa.table({name: found[name] for name in columns}, schema=pa.schema([self.schema.field(name) for name in columns]))
