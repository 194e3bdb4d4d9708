"""The bytes of an input, wherever they lie. Containers stay open between the inputs of a process.

Absent is FileNotFoundError, refused for good PermissionError; any other OSError may pass when it is tried again.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import AudioRefused
from manifests.remote import open_filesystem, os_errors
from pipeline.hub import load_saved, saved_version
from pipeline.inputs import Input, container_version

BLOCK_BYTES = 8 << 20
ROWS_AT_ONCE = 8  # rows of audio in memory; one may have many megabytes
OPEN_CONTAINERS = 4
STEPS_FORWARD = 64  # rows that reading on costs less for than starting again


@contextmanager
def open_input(item: Input) -> Iterator[BinaryIO]:
    """A readable binary file of the input's bytes as they came, undecoded.

    Raises, also while it is read, FileNotFoundError (gone, or its container changed since it was listed),
    PermissionError, and OSError for faults that may pass; AudioRefused for a row of a table that is broken there.
    """
    try:
        with os_errors():
            if not item.member:
                with _open_file(item) as file:
                    yield file
            elif item.offset is not None:
                fs, path = _unchanged(item.container, item.version)
                yield io.BufferedReader(_Range(fs, path, item.offset, item.num_bytes), max(1, min(item.num_bytes, BLOCK_BYTES)))
            else:
                column, row = item.member.rsplit("/", 1)
                yield io.BytesIO(_rows(item.container, item.version, column, threading.get_ident()).read(int(row)))
    except (OSError, AudioRefused):
        # What is open may be what is broken: the next attempt opens it again.
        _rows.cache_clear()
        raise


def _open_file(item: Input) -> Any:
    fs, path = open_filesystem(item.uri)
    if "http" in fs.protocol:
        # One request that streams; with the size known no other asks for it.
        return fs.open(path, "rb", block_size=0, size=item.num_bytes or None)
    return fs.open(path, "rb", block_size=BLOCK_BYTES)


@lru_cache(OPEN_CONTAINERS)
def _unchanged(container: str, version: str) -> tuple[Any, str]:
    """(filesystem, path) of a container of the version that was listed. Raises FileNotFoundError for another."""
    fs, path = open_filesystem(container)
    if container_version(fs.info(path)) != version:
        raise _changed(container)
    return fs, path


def _changed(container: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "changed since it was listed; list it again", container)


class _Range(io.RawIOBase):
    """Bytes ``[offset, offset + num_bytes)`` of a file, one request a read."""

    def __init__(self, fs: Any, path: str, offset: int, num_bytes: int) -> None:
        self._fs, self._path, self._at, self._end = fs, path, offset, offset + num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._end - self._at)
        if not wanted:
            return 0
        data = self._fs.cat_file(self._path, start=self._at, end=self._at + wanted)
        if len(data) != wanted:
            raise OSError(errno.EIO, f"{len(data)} bytes came instead of {wanted}", self._path)
        buffer[:wanted] = data
        self._at += wanted
        return wanted


class _Rows:
    """Audio of rows, read forwards where the next one asked for is near."""

    def __init__(self, start_at: Callable[[int], Iterator[bytes | None]]) -> None:
        self._start_at = start_at
        self._next, self._stream = 0, start_at(0)

    def read(self, row: int) -> bytes:
        """Raises FileNotFoundError when the row holds no bytes, AudioRefused when it cannot be read."""
        if 0 <= row - self._next < STEPS_FORWARD:
            with suppress(AudioRefused):  # of a row on the way, it may be
                return self._read_on(row)
        self._next, self._stream = row, self._start_at(row)
        return self._read_on(row)

    def _read_on(self, row: int) -> bytes:
        data = None
        while self._next <= row:
            data = next(self._stream, None)
            self._next += 1
        if data is None:
            raise FileNotFoundError(errno.ENOENT, f"row {row} holds no bytes")
        return data


@lru_cache(OPEN_CONTAINERS)
def _rows(container: str, version: str, column: str, thread: int) -> _Rows:
    """Rows of a table that is open; readers have a position, so each ``thread`` has its own."""
    if container.endswith(".parquet"):
        fs, path = _unchanged(container, version)
        file = pq.ParquetFile(fs.open(path, "rb", block_size=BLOCK_BYTES), pre_buffer=False)
        return _Rows(lambda row: _parquet_rows(file, column, row))
    if saved_version(container) != version:
        raise _changed(container)
    table = load_saved(container).select_columns([column]).with_format("arrow")
    return _Rows(lambda row: (pc.struct_field(table[i][column], "bytes")[0].as_py() for i in range(row, len(table))))


def _parquet_rows(file: pq.ParquetFile, column: str, row: int) -> Iterator[bytes | None]:
    first = 0
    for group in range(file.num_row_groups):
        num_rows = file.metadata.row_group(group).num_rows
        if first + num_rows > row:
            skip = max(0, row - first)
            batches = file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[f"{column}.bytes"], use_threads=False)
            for batch in _whole(batches, group):
                held = pc.struct_field(batch.column(0), "bytes")
                yield from (value.as_py() for value in held[skip:])
                skip = max(0, skip - len(held))
        first += num_rows


def _whole(batches: Iterator[pa.RecordBatch], group: int) -> Iterator[pa.RecordBatch]:
    """The batches of a row group. Raises AudioRefused where it is broken."""
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        # Arrow tells broken pages as OSErrors without a number; those of stores have one, or a class of their own.
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise
        said = " ".join(str(error).split())
        raise AudioRefused("broken_container", f"row group {group} of its table is broken: {said}; write it again") from error
