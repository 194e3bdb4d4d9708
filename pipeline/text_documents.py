"""Plain text on its way into a pack: every row of JSONL or Parquet files is a document, and so are lines of text that are taken together."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.console import ProgressBar
from manifests.errors import RequestError
from manifests.ids import digest_blocks, digest_bytes
from manifests.remote import open_filesystem, os_errors, refusal
from pipeline.document_kinds import TextDocuments
from pipeline.documents import MadeTurn, document_of
from pipeline.places import files_below, files_matching
from pipeline.recipe import PackRecipe
from pipeline.spills import Decision
from tokenization.artifact import Tokenizer

TABLE_SUFFIXES, LINES_SUFFIX = (".jsonl", ".parquet"), ".txt"
# Bytes of a file that are read as one part: much less than a spill, since short lines grow twentyfold in a tar.
PART_BYTES = 32 << 20
READ_BYTES = 1 << 20
READ_ROWS = 1024


@dataclass(frozen=True)
class TextFile:
    """One file of a text corpus; ``name`` is its path below the folder that all files share."""

    uri: str
    name: str
    num_bytes: int


@dataclass(frozen=True)
class TextPart:
    """The rows of a file that begin in ``[start, stop)``: bytes of JSONL and of lines, row groups of Parquet. Picklable."""

    name: str
    file: TextFile
    start: int
    stop: int
    recipe: PackRecipe
    tokenizer: str | None

    def decisions(self, skip: int) -> Iterator[Decision]:
        """One a row. Raises RequestError naming file and line (Parquet: row) of the first row without text."""
        tokenizer = Tokenizer.open(self.tokenizer) if self.tokenizer else None
        rows = ROWS[posixpath.splitext(self.file.name)[1]](self)
        for passed, (place, row) in enumerate(rows):
            if passed < skip:
                continue
            # The place makes equal rows two documents; the split follows the text, so that it cannot be in two.
            key = digest_bytes(f"{self.file.name}:{place}:{row['text']}".encode()).hex()
            facts = {"text": row["text"], "language": row.get("language"), "text_source": "source"}
            turn = MadeTurn(facts, num_text_tokens=len(tokenizer.text.encode(row["text"])) if tokenizer else None)
            split = self.recipe.split_of(digest_bytes(row["text"].encode()).hex())
            left_out = self.recipe.leave_out_named.get(key)
            documents = () if left_out else (document_of(key, "text", None, [turn], self.recipe.sample_rate_hz),)
            yield Decision(documents, split, left_out)


def text_files(sources: Sequence[str]) -> list[TextFile]:
    """The .jsonl and .parquet files that the sources name (files, folders, globs), by name; none when there is none.

    A .txt is taken by a file or pattern that ends so: in a folder of tables it explains them more often than it is one. Raises RequestError when a source that names a file or a pattern matches nothing.
    """
    found: dict[str, tuple[str, int]] = {}  # URI -> (path in its filesystem, bytes)
    for source in sources:
        fs, path = open_filesystem(source)
        suffixes = (*TABLE_SUFFIXES, LINES_SUFFIX) if source.endswith(LINES_SUFFIX) else TABLE_SUFFIXES
        try:
            with os_errors():
                if fs.isfile(path):
                    details = {path: fs.info(path)} if path.endswith(suffixes) else {}
                elif fs.isdir(path):
                    details = files_below(fs, path)
                else:
                    details = files_matching(fs, path) if any(sign in path for sign in "*?[") else {}
        except OSError as error:
            raise refusal(f"text corpus {source!r}", error) from error
        named = {place: info for place, info in details.items() if place.endswith(suffixes)}
        if not named and (source.endswith(suffixes) or not fs.isdir(path)):
            raise RequestError(
                f"text corpus {source!r} does not exist; give .jsonl or .parquet files with a column `text`, or .txt"
            )
        found |= {fs.unstrip_protocol(place): (place, int(info["size"])) for place, info in named.items()}
    if not found:
        return []
    shared = posixpath.commonpath([posixpath.dirname(path) for path, _ in found.values()])
    files = [TextFile(uri, posixpath.relpath(path, shared), size) for uri, (path, size) in found.items()]
    return sorted(files, key=lambda file: file.name)


def text_lineage(files: Sequence[TextFile], bar: ProgressBar) -> dict[str, Any]:
    """Name and digest of every file: all that decides the documents. Reads them once; the bar counts bytes."""
    texts = []
    for file in files:
        fs, path = open_filesystem(file.uri)
        with os_errors(), fs.open(path, "rb") as opened:

            def blocks(opened: Any = opened) -> Iterator[bytes]:
                while block := opened.read(READ_BYTES):
                    bar.advance(len(block))
                    yield block

            texts.append({"name": file.name, "digest": digest_blocks(blocks()).hex()})
    return {"texts": texts}


def text_parts(files: Sequence[TextFile], recipe: PackRecipe, tokenizer: str | None) -> list[TextPart]:
    """Every row of every file in one part. Raises RequestError for a Parquet file without a column ``text``."""
    spans = [(file, span) for file in files for span in _spans(file)]
    return [TextPart(f"{number:06d}", file, *span, recipe, tokenizer) for number, (file, span) in enumerate(spans)]


def _spans(file: TextFile) -> list[tuple[int, int]]:
    if not file.name.endswith(".parquet"):
        return [(start, min(start + PART_BYTES, file.num_bytes)) for start in range(0, file.num_bytes, PART_BYTES)]
    with _parquet(file) as opened:
        groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    spans: list[tuple[int, int]] = []
    num_bytes = 0
    for number, group in enumerate(groups):
        if not group.num_rows:
            continue
        if not spans or num_bytes + group.total_byte_size > PART_BYTES:
            spans.append((number, number))
            num_bytes = 0
        spans[-1] = (spans[-1][0], number + 1)
        num_bytes += group.total_byte_size
    return spans


def _jsonl_rows(part: TextPart) -> Iterator[tuple[int, dict[str, Any]]]:
    """(byte offset of its line, row) of the lines that begin in the part."""
    for at, line in _lines(part):
        yield at, _row(line, part.file, at)


def _plain_rows(part: TextPart) -> Iterator[tuple[int, dict[str, Any]]]:
    """(byte offset of the first line, row) of lines that begin in the part, taken together until they are long enough."""
    (config,) = part.recipe.documents
    assert isinstance(config, TextDocuments)
    taken, first, num_chars = list[str](), 0, 0
    for at, line in _lines(part):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            raise RequestError(f"{_line(part.file, at)} is not UTF-8 ({error.reason}); convert the file") from error
        first = at if not taken else first
        taken.append(text)
        num_chars += len(text)
        if num_chars >= config.line_chars:
            yield first, {"text": "\n".join(taken)}
            taken, num_chars = [], 0
    if taken:
        yield first, {"text": "\n".join(taken)}


def _lines(part: TextPart) -> Iterator[tuple[int, bytes]]:
    """(byte offset, line) of the lines that begin in the part, without blank ones."""
    fs, path = open_filesystem(part.file.uri)
    with os_errors(), fs.open(path, "rb") as opened:
        at = part.start
        if at:
            # A line that begins before the part belongs to the part before; the byte before tells whether one does.
            opened.seek(at - 1)
            at += len(opened.readline()) - 1
        while at < part.stop and (line := opened.readline()):
            if line.strip():
                yield at, line
            at += len(line)


def _row(line: bytes, file: TextFile, offset: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # JSON or UTF-8
        raise RequestError(f"{_line(file, offset)} is not JSON: {error}; each line is one object with `text`") from error
    if fault := _fault(row):
        raise RequestError(f"{_line(file, offset)} {fault}; each line is one object with it")
    return dict(row)


def _fault(row: Any) -> str:
    """What is wrong with a row; empty when nothing is."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        return "has no string `text`"
    if not isinstance(row.get("language"), str | None):
        return "has no string or null `language`"
    try:
        f"{row['text']}{row.get('language')}".encode()
    except UnicodeEncodeError:  # JSON can say it, and nothing that stores text can
        return "has no UTF-8 `text` or `language` (half a surrogate pair)"
    return ""


def _line(file: TextFile, offset: int) -> str:
    """The line at an offset by its number, for people: counted only when something is wrong with it."""
    fs, path = open_filesystem(file.uri)
    number, left = 1, offset
    with os_errors(), fs.open(path, "rb") as opened:
        while left and (block := opened.read(min(left, READ_BYTES))):
            number += block.count(b"\n")
            left -= len(block)
    return f"{file.uri!r} line {number}"


def _parquet(file: TextFile) -> pq.ParquetFile:
    """The open file. Raises RequestError when it is no Parquet or has no column ``text``."""
    fs, path = open_filesystem(file.uri)
    try:
        with os_errors():
            opened = pq.ParquetFile(fs.open(path, "rb"), pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise RequestError(f"{file.uri!r} is not Parquet: {' '.join(str(error).split())}; write it again") from error
    if "text" not in opened.schema_arrow.names:
        raise RequestError(f"{file.uri!r} has no column `text`; it has {', '.join(opened.schema_arrow.names)}")
    return opened


def _parquet_rows(part: TextPart) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number in the file, row) of the part's row groups."""
    with os_errors(), _parquet(part.file) as opened:
        number = sum(opened.metadata.row_group(group).num_rows for group in range(part.start))
        columns = [name for name in ("text", "language") if name in opened.schema_arrow.names]
        batches = opened.iter_batches(READ_ROWS, [*range(part.start, part.stop)], columns, use_threads=False)
        for row in (row for batch in batches for row in batch.to_pylist()):
            if fault := _fault(row):
                raise RequestError(f"{part.file.uri!r} row {number} {fault}; each row needs one")
            yield number, row
            number += 1


ROWS: dict[str, Callable[[TextPart], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
    LINES_SUFFIX: _plain_rows,
}
