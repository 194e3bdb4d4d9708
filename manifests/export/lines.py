"""JSON lines of an export: each part writes a piece of its own, and the pieces of a split are joined at the end.

Rows are never held: a piece grows in a temporary file, and joining copies bytes. Gzip allows it too, members follow
one another (RFC 1952, section 2.2).
"""

from __future__ import annotations

import gzip
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, BinaryIO

from manifests.store import COPY_BYTES, Store

STATE = ".stepwell"  # folder of an export that holds what only its own resumption needs


class LinesPiece:
    """One part's lines of one file. Use as a context; the piece is put when the block ends without an error."""

    def __init__(self, store: Store, path: str, number: int) -> None:
        self._store, self._path = store, piece_path(path, number)
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        # No clock in the header: equal rows, equal bytes.
        self._sink = gzip.GzipFile(fileobj=self._file, mode="wb", mtime=0) if path.endswith(".gz") else self._file

    def __enter__(self) -> LinesPiece:
        return self

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row as ``json_line`` has it."""
        self._sink.write(json_line(row))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if self._sink is not self._file:
                self._sink.close()
            if error is None:
                self._store.write_file(self._path, self._file)


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as one line, without its nulls; NaN and infinity, which JSON has not, are nulls at any depth, and times ISO 8601."""
    known = {key: said for key, value in row.items() if (said := _finite(value)) is not None}
    return json.dumps(known, ensure_ascii=False, allow_nan=False, default=_text).encode() + b"\n"


def _text(moment: Any) -> str:
    """A date or time, of all that is in a table the one kind that JSON lacks."""
    return str(moment.isoformat())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else value


def piece_path(path: str, number: int) -> str:
    return f"{STATE}/pieces/{path}/{number:06d}"


def join_pieces(store: Store, path: str, numbers: Iterable[int]) -> None:
    """Write ``path`` as the pieces of these parts in order, one block in memory."""
    with tempfile.TemporaryFile() as joined:
        for number in numbers:
            with store.open(piece_path(path, number)) as piece:
                shutil.copyfileobj(piece, joined, COPY_BYTES)
        store.write_file(path, joined)
