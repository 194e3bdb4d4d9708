"""The table of one unit, wherever it is: as its commit says, or in a compacted part; and how such parts are written."""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.commits import Commit, ObjectFact, commit_path, parse_commit
from manifests.compacted import RowGroup, read_compaction
from manifests.earlier_tables import completed
from manifests.errors import WorkError, parsing
from manifests.ids import digest_blocks
from manifests.snapshots import latest_snapshot_number, read_snapshot
from manifests.store import COPY_BYTES, Store

Compacted = Mapping[str, Mapping[str, str]]  # output -> fingerprint -> path of a compaction
HELD_COMMITS = 10_000  # about 10 MB
OPEN_PARTS = 16  # clips and the layers of a unit lie in as many parts; each keeps a footer of some 100 KB


class UnitTables:
    """Tables of units as one snapshot's ``compacted`` says; without one, as commits say.

    When an object is gone, since a compaction replaced it after the caller began, the newest snapshot is asked: a
    compaction changes no row, so whoever is at work goes on with the same ones. Threads may share one.
    """

    def __init__(self, store: Store, compacted: Compacted | None = None) -> None:
        self.store = store
        self._compacted = compacted or {}
        self._commits: dict[tuple[str, str, str], Commit] = {}
        self._open = threading.local()  # a Parquet file is read by one thread at a time

    def commit(self, output: str, fingerprint: str, unit: str) -> Commit:
        """Commit of one unit, remembered for a while. Raises WorkError when there is none."""
        key = (output, fingerprint, unit)
        # What was read is taken from the answer: another thread may let go of all that is remembered.
        found = self._commits.get(key) or self.load([key]).get(key)
        if found is None:
            raise WorkError(
                f"unit {unit}: {output!r} ({fingerprint}) is not committed; finish the build, or run `stepwell corpus fsck`"
            )
        return found

    def load(self, keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], Commit]:
        """Read the commits of (output, fingerprint, unit) that there are and are not remembered, and return those.

        An object store answers many at a time. Raises WorkError where one is damaged.
        """
        missing = [commit_path(*key) for key in keys if key not in self._commits]
        if len(self._commits) + len(missing) > HELD_COMMITS:
            self._commits.clear()
        read: dict[tuple[str, str, str], Commit] = {}
        for path, data in self.store.read_all(missing):
            with parsing(self.store.uri, path):
                commit = parse_commit(data)
            read[commit.output, commit.fingerprint, commit.unit] = commit
        self._commits.update(read)
        return read

    def read(self, output: str, fingerprint: str, unit: str, role: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of one unit; only ``columns``, in their order, when given. Of an earlier version's table as ``completed`` has them.

        Raises WorkError when they are nowhere.
        """
        table = self._from_part(self._compacted, output, fingerprint, unit, role, columns)
        if table is None:
            table = self._from_commit(output, fingerprint, unit, role, columns)
        if table is None:
            number = latest_snapshot_number(self.store)
            newest = read_snapshot(self.store, number).compacted if number >= 0 else {}
            table = self._from_part(newest, output, fingerprint, unit, role, columns)
        if table is None:
            raise WorkError(
                f"unit {unit}: the {role} of {output!r} ({fingerprint}) are gone; run `stepwell corpus fsck --repair`"
            )
        return completed(role, table, columns)

    def read_many(
        self, output: str, fingerprint: str, units: Sequence[str], role: str, columns: list[str] | None = None
    ) -> tuple[pa.Table, list[int]]:
        """Rows of several units, one unit after the other, and how many each has: what one object holds is read at once.

        Raises WorkError as ``read`` does.
        """
        path = self._compacted.get(output, {}).get(fingerprint)
        try:
            compaction = None if path is None else read_compaction(self.store, path)
            places = [None if compaction is None else compaction.find(role, unit) for unit in units]
            tables, counts = list[pa.Table](), list[int]()
            for object_path, run in itertools.groupby(zip(units, places, strict=True), lambda item: item[1] and item[1].path):
                here = list(run)
                if object_path is None:
                    tables += [self.read(output, fingerprint, unit, role, columns) for unit, _ in here]
                    counts += [table.num_rows for table in tables[-len(here) :]]
                else:
                    numbers = [place.number for _, place in here if place]
                    read = self._part(object_path).read_row_groups(numbers, columns=columns, use_threads=False)
                    tables.append(completed(role, read, columns))
                    counts += [place.num_rows for _, place in here if place]
        except FileNotFoundError:  # a compaction replaced the object
            tables = [self.read(output, fingerprint, unit, role, columns) for unit in units]
            counts = [table.num_rows for table in tables]
        return pa.concat_tables(tables), counts

    def _from_commit(self, output: str, fingerprint: str, unit: str, role: str, columns: list[str] | None) -> pa.Table | None:
        fact = self.commit(output, fingerprint, unit).objects[role]
        try:
            return self.store.read_table(fact.path, columns)
        except FileNotFoundError:
            return None

    def _from_part(
        self, compacted: Compacted, output: str, fingerprint: str, unit: str, role: str, columns: list[str] | None
    ) -> pa.Table | None:
        path = compacted.get(output, {}).get(fingerprint)
        try:
            found = None if path is None else read_compaction(self.store, path).find(role, unit)
            return None if found is None else self.row_group(found, columns)
        except FileNotFoundError:
            return None

    def row_group(self, found: RowGroup, columns: list[str] | None = None) -> pa.Table:
        """One row group of a large object, whose footer is kept for the next."""
        return self._part(found.path).read_row_group(found.number, columns=columns, use_threads=False)

    def _part(self, path: str) -> pq.ParquetFile:
        """The open file of a compacted part, this thread's own."""
        parts: dict[str, pq.ParquetFile] = self._open.__dict__.setdefault("parts", {})
        if path not in parts:
            while len(parts) >= OPEN_PARTS:
                parts.pop(next(iter(parts))).close(force=True)
            parts[path] = open_part(self.store, path)
        return parts[path]


def open_part(store: Store, path: str) -> pq.ParquetFile:
    """A compacted part, to be read by row groups on the caller's thread; its page checksums are verified."""
    return pq.ParquetFile(store.open(path), pre_buffer=False, page_checksum_verification=True)


class TableFile:
    """A large Parquet object in the making: tables become row groups of a local temporary file, which is then put whole."""

    def __init__(self, schema: pa.Schema) -> None:
        # Delete on close: a killed process leaves nothing behind.
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by put)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)
        self.row_group_rows: list[int] = []

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the footer."""
        return self._file.tell()

    def append(self, table: pa.Table) -> int:
        """Number of the row group that now holds the table, also when it has no rows."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.row_group_rows.append(table.num_rows)
        return len(self.row_group_rows) - 1

    def put(self, store: Store, path: str) -> ObjectFact:
        """Write the object; nothing can be appended any more."""
        with self._file:
            self._writer.close()
            num_bytes = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)
            digest = digest_blocks(iter(lambda: self._file.read(COPY_BYTES), b""))
            store.write_file(path, self._file)
        return ObjectFact(path, num_bytes, digest.hex(), sum(self.row_group_rows))
