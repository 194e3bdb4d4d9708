"""Uncompressed tars with an index, written so that equal members give equal bytes, read by plain offset.

The index (``<tar>.idx``) is text, one line a member: name, data offset, data bytes, separated by tabs. It is written
together with the tar, so nothing scans a tar to find a member, but for one that somebody was rewriting.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from manifests.errors import ContractError
from manifests.store import Store

BLOCK_BYTES = tarfile.BLOCKSIZE
MAX_NAME_BYTES = 100
MAX_MEMBER_BYTES = 8**11 - 1


class Member(NamedTuple):
    """Where one member's data lies in its tar."""

    name: str
    offset: int
    num_bytes: int


class TarWriter:
    """Appends members in order to ``file`` (seekable, empty; memory by default).

    ``finish``, or ``close`` for a small one, ends the tar.
    """

    def __init__(self, file: BinaryIO | None = None) -> None:
        self.file: BinaryIO = io.BytesIO() if file is None else file
        self.members: list[Member] = []
        self.num_bytes = 0  # written so far, without the end blocks

    def add(self, name: str, data: bytes) -> Member:
        """Append a member; its header holds no clock, owner or host."""
        member = Member(name, self.num_bytes + BLOCK_BYTES, len(data))
        self.file.write(header(name, len(data)))
        self.file.write(data)
        self.file.write(padding(len(data)))
        self.num_bytes = self.file.tell()
        self.members.append(member)
        return member

    def undo(self, num_members: int) -> None:
        """Take back all but the first ``num_members``."""
        if num_members < len(self.members):
            self.num_bytes = self.members[num_members].offset - tarfile.BLOCKSIZE
            self.file.seek(self.num_bytes)
            self.file.truncate()
            del self.members[num_members:]

    def finish(self) -> bytes:
        """End the tar; the bytes of its index."""
        self.file.write(end_blocks(self.num_bytes))
        return index_bytes(self.members)

    def close(self) -> tuple[bytes, bytes]:
        """End a tar that fits in memory: (its bytes, the bytes of its index)."""
        index = self.finish()
        self.file.seek(0)
        return self.file.read(), index


def _template() -> tuple[bytes, bytes, int]:
    """What of a header stands between name and size, what behind the checksum, and the sum of both and of the blanks."""
    info = tarfile.TarInfo("")
    info.mode = 0o444
    block = info.tobuf(tarfile.USTAR_FORMAT)
    middle, rest = block[100:124], block[136:148] + b" " * 8 + block[156:]
    return middle, rest, sum(middle) + sum(rest)


_MIDDLE, _REST, _SUM = _template()


def header(name: str, num_bytes: int) -> bytes:
    """The ustar header of a member, as ``tarfile`` writes it and ten times as fast: mode 0444, no clock, owner or host.

    Raises ContractError for a name that is not ASCII or past 100 bytes, and for a member of 8 GiB or more.
    """
    raw = name.encode()
    if not raw.isascii() or len(raw) > MAX_NAME_BYTES:
        raise ContractError(f"tar member {name!r}: names are ASCII of at most {MAX_NAME_BYTES} bytes; shorten the key")
    if num_bytes > MAX_MEMBER_BYTES:
        raise ContractError(f"tar member {name!r} has {num_bytes} bytes; the format holds less than 8 GiB: cut it shorter")
    size = b"%011o\0" % num_bytes
    checksum = b"%06o\0 " % (_SUM + sum(raw) + sum(size))
    return b"".join((raw.ljust(MAX_NAME_BYTES, b"\0"), _MIDDLE, size, _REST[:12], checksum, _REST[20:]))


def padding(num_bytes: int) -> bytes:
    """What fills the last block of a member's data."""
    return bytes(-num_bytes % BLOCK_BYTES)


def end_blocks(num_bytes: int) -> bytes:
    """What ends a tar whose members take ``num_bytes``."""
    return bytes(2 * BLOCK_BYTES + -(num_bytes + 2 * BLOCK_BYTES) % tarfile.RECORDSIZE)


def index_bytes(members: Iterable[Member]) -> bytes:
    """The index of a tar."""
    return "".join(f"{m.name}\t{m.offset}\t{m.num_bytes}\n" for m in members).encode()


def parse_index(data: bytes) -> list[Member]:
    """Members in tar order."""
    rows = (line.split("\t") for line in data.decode().splitlines())
    return [Member(name, int(offset), int(num_bytes)) for name, offset, num_bytes in rows]


def read_index(store: Store, tar_path: str) -> list[Member]:
    """Members of the tar at ``tar_path``, from the index beside it."""
    return parse_index(store.read(f"{tar_path}.idx"))


def read_true_index(store: Store, tar_path: str) -> list[Member]:
    """Members of a tar whose index may be lost, or that of a tar that was there before it.

    Without a member, or with one more, the last one does not lie where it lay: where its header is not there, all headers are read.
    """
    try:
        members = read_index(store, tar_path)
    except FileNotFoundError:
        members = []
    if members:
        last = members[-1]
        start = last.offset - BLOCK_BYTES
        is_inside = last.offset + last.num_bytes <= store.size(tar_path)
        if is_inside and store.read(tar_path, start, BLOCK_BYTES) == header(last.name, last.num_bytes):
            return members
    with store.open(tar_path) as file:
        return scan_members(file)


def scan_members(file: BinaryIO) -> list[Member]:
    """Members of a tar in order, from its headers. Raises tarfile.TarError where it is none."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        return [Member(info.name, info.offset_data, info.size) for info in tar]


def read_member(store: Store, tar_path: str, member: Member) -> bytes:
    """One member's data by range read."""
    return store.read(tar_path, member.offset, member.num_bytes)
