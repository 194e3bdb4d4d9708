"""Tars and WebDataset shards: their audio members as inputs, read later by range and never by scanning again.

Members ``K.json`` and ``K.txt`` beside ``K.flac`` are facts of it: the JSON's keys are columns, and so is ``txt``.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from manifests.console import say
from manifests.errors import RequestError
from manifests.remote import os_errors, refusal
from manifests.tars import Member
from pipeline.columns import ColumnMap, facts_of
from pipeline.inputs import Input, container_version, folder_of, is_audio_name, uri_of

# Headers lie between the members: blocks of this size are few requests for small members, and few bytes for large ones.
BLOCK_BYTES = 1 << 20
TEXT_COLUMN = "txt"


@dataclass
class _Contents:
    """What a tar holds: whole audio members in order, columns by key, and what is wrong with its end."""

    audio: list[Member] = field(default_factory=list)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    complaint: str = ""


def list_tar(fs: Any, info: dict[str, Any], columns: ColumnMap) -> Iterator[Input]:
    """Audio members in the order of the tar. A tar that is cut short gives its whole members, and a line on stderr.

    Raises RequestError when it is not an uncompressed tar, or lacks a mapped column.
    """
    uri, version = uri_of(fs, info["name"]), container_version(info)
    try:
        with os_errors(), fs.open(info["name"], "rb", block_size=BLOCK_BYTES) as file:
            contents = _read(file, int(info["size"] or 0))
    except (tarfile.ReadError, ValueError) as error:
        raise RequestError(
            f"tar {uri!r} cannot be listed: {error}; it must be an uncompressed tar, on a server that reads ranges"
        ) from error
    except OSError as error:
        raise refusal(f"tar {uri!r}", error) from error
    if contents.complaint:
        say(f"warning: tar {uri!r} {contents.complaint}; its {len(contents.audio)} whole audio members are taken")
    if again := len(contents.audio) - len({(member.name, member.num_bytes) for member in contents.audio}):
        say(f"warning: tar {uri!r} has {again} audio members of a name and size that came before; the first of each is taken")
    available = {name for row in contents.columns.values() for name in row}
    if available:  # a tar of nothing but audio may lie beside sources with columns
        columns.model_copy(update={"uri": None}).check(available, f"tar {uri!r}")
    columns.tell_unread(available - {TEXT_COLUMN}, f"tar {uri!r}")
    taken = {"text": TEXT_COLUMN} if TEXT_COLUMN in available else {}
    taken |= columns.taken(available)
    for member in contents.audio:
        row = _row_of(member.name, contents.columns)
        facts = facts_of(row, taken, uri, folder_of(fs, info["name"]), f"member {member.name!r} of tar {uri!r}")
        yield Input(f"{uri}#{member.name}", member.num_bytes, version, facts, member.name, member.offset)


def _read(file: IO[bytes], num_bytes: int) -> _Contents:
    contents = _Contents()
    end = 0
    # Names of old tars are in any encoding: what is no UTF-8 stays told apart, as \\xe9.
    with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar:
        while True:
            try:
                member = tar.next()
            except tarfile.ReadError:
                contents.complaint = "is cut short"
                break
            if member is None:
                end = tar.offset
                break
            # tarfile keeps every header it has read; a shard may hold a million.
            tar.members = []  # type: ignore[attr-defined]
            if member.offset_data + member.size > num_bytes:
                contents.complaint = f"is cut short in member {member.name!r}"
                break
            if member.isfile():
                _take(contents, file, Member(member.name, member.offset_data, member.size))
    if not contents.complaint:
        # tarfile takes whatever is no header for the end; a tar ends with blocks of zeros.
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            contents.complaint = "has no end (cut short or damaged)"
    return contents


def _take(contents: _Contents, file: IO[bytes], member: Member) -> None:
    stem, suffix = posixpath.splitext(member.name)
    if is_audio_name(member.name):
        contents.audio.append(member)
    elif suffix == ".json":
        row = _parsed(_data(file, member))
        if row is None:
            say(f"note: member {member.name!r} of tar is no JSON object; it gives no facts")
        else:
            contents.columns.setdefault(stem, {}).update(row)
    elif suffix == ".txt":
        contents.columns.setdefault(stem, {})[TEXT_COLUMN] = _data(file, member).decode(errors="replace").strip()


def _data(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.num_bytes)


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _row_of(name: str, columns: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Columns of the audio member: of its name without suffix, else of its WebDataset key, which ends at the first dot."""
    stem = posixpath.splitext(name)[0]
    if stem in columns:
        return columns[stem]
    folder, base = posixpath.split(name)
    return columns.get(posixpath.join(folder, base.split(".")[0]), {})
