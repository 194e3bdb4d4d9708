"""One place on disk or in an object store, with the one promise that commits rest on: create only if absent.

All paths are relative to the store's root and use ``/``. Any fsspec URI is a store.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from manifests.errors import RequestError, StoreError
from manifests.ids import canonical_json, new_attempt_id

COPY_BYTES = 1 << 20


class Store:
    """A root URI and the operations on objects below it. Picklable: workers get their own."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or uri
        try:
            self.fs, self.root = url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise RequestError(f"URI {uri!r} cannot be opened: {error}; use a local path or an fsspec URI") from error
        self.is_local = isinstance(self.fs, fsspec.get_filesystem_class("file"))

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.uri,))

    def _at(self, path: str) -> str:
        return posixpath.join(self.root, path) if path else self.root

    def exists(self, path: str = "") -> bool:
        return bool(self.fs.exists(self._at(path)))

    def size(self, path: str) -> int:
        return int(self.fs.size(self._at(path)))

    def read(self, path: str, offset: int = 0, num_bytes: int | None = None) -> bytes:
        """The object's bytes, or ``num_bytes`` of them from ``offset`` on. Raises FileNotFoundError."""
        try:
            if offset == 0 and num_bytes is None:
                return bytes(self.fs.cat_file(self._at(path)))
            end = None if num_bytes is None else offset + num_bytes
            return bytes(self.fs.cat_file(self._at(path), start=offset, end=end))
        except NotADirectoryError as error:  # a file stands where a folder of the path should be: nothing is there
            raise FileNotFoundError(str(error)) from error

    def write(self, path: str, data: bytes) -> None:
        """Write a new object under a name that nobody else uses, durably."""
        target = self._at(path)
        if not self.is_local:
            self.fs.pipe_file(target, data)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(os.path.dirname(target))

    def write_file(self, path: str, file: BinaryIO) -> None:
        """``write`` for what is too large for memory: all of a local, seekable file, in blocks."""
        target = self._at(path)
        file.seek(0)
        if not self.is_local:
            with self.fs.open(target, "wb") as remote:
                shutil.copyfileobj(file, remote, COPY_BYTES)
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as local:
            shutil.copyfileobj(file, local, COPY_BYTES)
            local.flush()
            os.fsync(local.fileno())
        _sync_folder(os.path.dirname(target))

    def create(self, path: str, data: bytes) -> bool:
        """Create the object only if it is absent; False when another was first. The whole of a commit rests on this."""
        target = self._at(path)
        if not self.is_local:
            try:
                self.fs.pipe_file(target, data, mode="create")
            except FileExistsError:
                return False
            return True
        draft = f"{path}.{new_attempt_id()}.draft"
        self.write(draft, data)
        try:
            os.link(self._at(draft), target)
        except FileExistsError:
            return False
        finally:
            os.unlink(self._at(draft))
        _sync_folder(os.path.dirname(target))
        return True

    def remove(self, path: str) -> None:
        """Remove an object; no complaint when it is gone already."""
        try:
            self.fs.rm_file(self._at(path))
        except FileNotFoundError:
            return

    def objects(self, folder: str) -> list[str]:
        """Paths of all objects below a folder, sorted; drafts are left out."""
        base = self._at(folder)
        if not self.fs.exists(base):
            return []
        self.fs.invalidate_cache()
        found = (posixpath.relpath(path, self._at("")) for path in self.fs.find(base))
        return sorted(path for path in found if not path.endswith(".draft"))

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet object as a table; only ``columns``, in their order, when given.

        On this thread alone: Arrow's own threads may still hold a Python buffer when the interpreter ends, and then
        abort the process (seen with pyarrow 26).
        """
        file = pq.ParquetFile(pa.BufferReader(self.read(path)), pre_buffer=False)
        return file.read(columns=columns, use_threads=False)

    def check_exclusive(self) -> None:
        """Refuse a store that lets the second of two creations win, or that cannot be written at all."""
        probe = f".probe-{new_attempt_id()}"
        try:
            first, second = self.create(probe, b"1"), self.create(probe, b"2")
        except (OSError, NotImplementedError, ValueError) as error:
            raise RequestError(f"output {self.uri!r} cannot be written: {error}; choose another --out") from error
        self.remove(probe)
        if not first or second:
            raise StoreError(f"store {self.uri!r} ignores create-only-if-absent; commits need a store that honours it")


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet: one layout for equal rows (zstd, no writer-dependent choices)."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=True)
    return sink.getvalue()


def json_bytes(value: Any) -> bytes:
    """A value as canonical JSON with a final newline."""
    return (canonical_json(value) + "\n").encode()


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
