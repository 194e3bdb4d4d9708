"""One place on disk or in an object store, with the one promise that commits rest on: create only if absent.

All paths are relative to the store's root and use ``/``. Any fsspec URI is a store.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import io
import os
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import RequestError, StoreError, WorkError
from manifests.ids import canonical_json, new_attempt_id
from manifests.remote import local_files, open_filesystem, os_errors

# Measured on ext4 in a virtual machine (Linux 6.18): blocks of 1 MB and more are written at a third of the speed.
COPY_BYTES = 1 << 17
READ_AT_ONCE = 1000
OPEN_BYTES = 4 << 20  # what a remote object is fetched by: a unit's rows come with one request
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


class ObjectDetail(NamedTuple):
    """What a listing says of an object."""

    num_bytes: int
    modified_at_s: float | None  # seconds since 1970 UTC; None where the store does not tell


class Store:
    """A root URI and the operations on objects below it. Picklable: workers get their own.

    Faults of the store are OSErrors, whatever its client raises (``manifests.remote``); a full disk is a WorkError.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or uri
        self.fs, self.root = open_filesystem(self.uri)
        self.is_local = isinstance(self.fs, fsspec.get_filesystem_class("file"))

    @property
    def full_uri(self) -> str:
        """The URI as it holds from any folder: a local path is a whole one."""
        return self.root if self.is_local else self.uri

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.uri,))

    def _at(self, path: str) -> str:
        return posixpath.join(self.root, path) if path else self.root

    def exists(self, path: str = "") -> bool:
        # Not fs.exists: that takes a store which does not answer for one where nothing is.
        try:
            with os_errors():
                self.fs.info(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def size(self, path: str) -> int:
        with os_errors():
            return int(self.fs.size(self._at(path)))

    def read(self, path: str, offset: int = 0, num_bytes: int | None = None) -> bytes:
        """The object's bytes, or ``num_bytes`` of them from ``offset`` on. Raises FileNotFoundError."""
        try:
            with os_errors():
                if self.is_local:  # fsspec takes five times as long to open a file
                    with open(self._at(path), "rb") as file:
                        file.seek(offset)
                        return file.read(num_bytes)
                if offset == 0 and num_bytes is None:
                    return bytes(self.fs.cat_file(self._at(path)))
                end = None if num_bytes is None else offset + num_bytes
                return bytes(self.fs.cat_file(self._at(path), start=offset, end=end))
        except NotADirectoryError as error:  # a file stands where a folder of the path should be: nothing is there
            raise FileNotFoundError(str(error)) from error

    def read_all(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of small objects in order, those that are gone left out; an object store answers many at a time."""
        for start in range(0, len(paths), READ_AT_ONCE):
            asked = paths[start : start + READ_AT_ONCE]
            with os_errors():
                # Not fs.cat: it takes a path with [ or * in it for a pattern.
                found = self.fs.cat_ranges([self._at(path) for path in asked], None, None, on_error="return")
            for path, answer in zip(asked, found, strict=True):
                if not isinstance(answer, FileNotFoundError):
                    with os_errors():
                        yield path, _told(answer)

    def open(self, path: str) -> BinaryIO:
        """The object to be read in any order, a few MB at a time. Raises FileNotFoundError."""
        with os_errors():
            file: BinaryIO = self.fs.open(self._at(path), "rb", block_size=OPEN_BYTES)
        return file

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """The bytes ``[start, end)`` of objects, in order; an object store answers many at a time."""
        paths, starts, ends = ([*values] for values in zip(*((self._at(path), a, b) for path, a, b in ranges), strict=True))
        with os_errors():
            return [bytes(data) for data in self.fs.cat_ranges(paths, starts, ends, on_error="raise")]

    def write(self, path: str, data: bytes) -> None:
        """Write a new object under a name that nobody else uses, durably."""
        if self.is_local:
            with self._local_file(path) as file, memoryview(data) as view:
                for start in range(0, len(view), COPY_BYTES):
                    file.write(view[start : start + COPY_BYTES])
            return
        with os_errors():
            self.fs.pipe_file(self._at(path), data)

    def write_file(self, path: str, file: BinaryIO) -> None:
        """``write`` for what is too large for memory: all of a local, seekable file, in blocks."""
        file.seek(0)
        if self.is_local:
            with self._local_file(path) as local:
                shutil.copyfileobj(file, local, COPY_BYTES)
            return
        with os_errors(), self.fs.open(self._at(path), "wb") as remote:
            shutil.copyfileobj(file, remote, COPY_BYTES)

    @contextlib.contextmanager
    def _local_file(self, path: str) -> Iterator[BinaryIO]:
        """A file to write, durable when the block ends. Raises WorkError when the disk is full, and leaves no part."""
        target = self._at(path)
        try:
            _make_folder(os.path.dirname(target))
            with open(target, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in FULL_ERRNOS:
                raise
            with contextlib.suppress(OSError):
                os.unlink(target)
            # Not an OSError: those are tried again, and a full disk stays full.
            raise WorkError(
                f"output {self.uri!r} is full ({error.strerror}, writing {path!r}); make room and run the same command again: "
                "what is committed stays"
            ) from error
        _sync_folder(os.path.dirname(target))

    def replace(self, path: str, data: bytes) -> None:
        """Write an object that may be there already: a reader sees the old bytes or the new, never a part of either."""
        if not self.is_local:
            self.write(path, data)
            return
        draft = f"{path}.{new_attempt_id()}.draft"
        self.write(draft, data)
        os.replace(self._at(draft), self._at(path))

    def create(self, path: str, data: bytes) -> bool:
        """Create the object only if it is absent; False when another was first. The whole of a commit rests on this.

        On an object store an object of exactly these bytes counts as ours.
        """
        target = self._at(path)
        if not self.is_local:
            try:
                with os_errors():
                    self.fs.pipe_file(target, data, mode="create")
            except FileExistsError:
                # A client repeats a request whose answer was lost, and is then refused for its own success.
                return self.read(path) == data
            return True
        draft = f"{path}.{new_attempt_id()}.draft"
        self.write(draft, data)
        return self._link(draft, path)

    def create_file(self, path: str, local_path: str) -> bool:
        """``create`` for what is too large for memory: all of a local file."""
        if not self.is_local:
            try:
                with os_errors():
                    self.fs.put_file(local_path, self._at(path), mode="create")
            except FileExistsError:
                return self.holds(path, local_path)  # as in create
            return True
        draft = f"{path}.{new_attempt_id()}.draft"
        with open(local_path, "rb") as file:
            self.write_file(draft, file)
        return self._link(draft, path)

    def holds(self, path: str, local_path: str) -> bool:
        """Whether the object has exactly the bytes of the local file."""
        if self.size(path) != os.path.getsize(local_path):
            return False
        with open(local_path, "rb") as ours, self.open(path) as theirs:
            return all(block == theirs.read(len(block)) for block in iter(lambda: ours.read(COPY_BYTES), b""))

    def _link(self, draft: str, path: str) -> bool:
        """Give a draft its name, unless something has it; the draft goes."""
        try:
            os.link(self._at(draft), self._at(path))
        except FileExistsError:
            return False
        finally:
            os.unlink(self._at(draft))
        _sync_folder(os.path.dirname(self._at(path)))
        return True

    def remove_drafts(self, folder: str) -> None:
        """Remove what killed processes left of objects that never got their name: for whoever knows that nobody writes."""
        if self.is_local and self.exists(folder):
            for path in local_files(self._at(folder)):
                if path.endswith(".draft"):
                    self.fs.rm_file(path)

    def remove(self, path: str) -> None:
        """Remove an object; no complaint when it is gone already."""
        try:
            with os_errors():
                self.fs.rm_file(self._at(path))
        except FileNotFoundError:
            return

    def objects(self, folder: str) -> list[str]:
        """Paths of all objects below a folder, sorted; drafts are left out."""
        paths = local_files(self._at(folder)) if self.is_local else self._infos(folder)
        found = (posixpath.relpath(path, self._at("")) for path in paths)
        return sorted(path for path in found if not path.endswith(".draft"))

    def details(self, folder: str = "") -> dict[str, ObjectDetail]:
        """Every object below a folder, drafts too, from one listing."""
        root = self._at("")
        return {
            posixpath.relpath(path, root): ObjectDetail(int(info["size"]), _modified_at_s(info))
            for path, info in sorted(self._infos(folder).items())
        }

    def _infos(self, folder: str) -> dict[str, dict[str, Any]]:
        """fsspec's description of every object below a folder."""
        found: dict[str, dict[str, Any]] = {}
        if self.is_local:
            for path in local_files(self._at(folder)):
                with contextlib.suppress(FileNotFoundError):  # drafts come and go
                    found[path] = self.fs.info(path)
            return found
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError), os_errors():
            found = self.fs.find(self._at(folder), detail=True)
        return found

    def read_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet object as a table; only ``columns``, in their order, when given."""
        return parse_table(self.read(path), columns)

    def check_exclusive(self) -> None:
        """Refuse a store that lets the second of two creations win, or that cannot be written at all."""
        probe = f".probe-{new_attempt_id()}"
        try:
            first, second = self.create(probe, b"1"), self.create(probe, b"2")
            self.remove(probe)
        except (OSError, NotImplementedError, ValueError) as error:
            raise RequestError(f"output {self.uri!r} cannot be written: {error}; choose another --out") from error
        if not first or second:
            raise StoreError(f"store {self.uri!r} ignores create-only-if-absent; commits need a store that honours it")


def place_of(uri: str) -> tuple[Store, str]:
    """The folder that one object is in, and the name that it has there: of ``/a.csv``, ``a.csv`` and ``s3://bucket/f/a.csv``."""
    folder, _, name = uri.rpartition("/")
    return Store(folder or ("/" if uri.startswith("/") else ".")), name


def parse_table(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table in the bytes of a Parquet object; only ``columns``, in their order, when given.

    On this thread alone: Arrow's own threads may still hold a Python buffer when the interpreter ends, and then
    abort the process (seen with pyarrow 26).
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(columns=columns, use_threads=False)


def table_bytes(table: pa.Table) -> bytes:
    """A table as Parquet: one layout for equal rows (zstd, no writer-dependent choices)."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=True)
    return sink.getvalue()


def json_bytes(value: Any) -> bytes:
    """A value as canonical JSON with a final newline."""
    return (canonical_json(value) + "\n").encode()


def _told(answer: bytes | Exception) -> bytes:
    """The bytes of an answer. Raises what it is instead."""
    if isinstance(answer, Exception):
        raise answer
    return bytes(answer)


def _modified_at_s(info: dict[str, Any]) -> float | None:
    """By the names that filesystems give it; as a number, a datetime or ISO 8601."""
    value = next((info[key] for key in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(key)), None)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime.datetime) else value


def _make_folder(folder: str) -> None:
    """Durably: what lies in a folder is lost with the power as long as the folder above does not name it for good."""
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        _sync_folder(os.path.dirname(folder))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
