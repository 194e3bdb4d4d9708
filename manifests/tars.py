"""Uncompressed tars with an index, written so that equal members give equal bytes, read by plain offset.

The index (``<tar>.idx``) is text, one line a member: name, data offset, data bytes, separated by tabs. It is written
together with the tar, so nothing ever scans a tar to find a member.
"""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO, NamedTuple

from manifests.store import Store


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
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o444
        member = Member(name, self.num_bytes + tarfile.BLOCKSIZE, len(data))
        self.file.write(info.tobuf(tarfile.USTAR_FORMAT))
        self.file.write(data)
        self.file.write(bytes(-len(data) % tarfile.BLOCKSIZE))
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
        end = self.num_bytes + 2 * tarfile.BLOCKSIZE
        self.file.write(bytes(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - self.num_bytes))
        return "".join(f"{m.name}\t{m.offset}\t{m.num_bytes}\n" for m in self.members).encode()

    def close(self) -> tuple[bytes, bytes]:
        """End a tar that fits in memory: (its bytes, the bytes of its index)."""
        index = self.finish()
        self.file.seek(0)
        return self.file.read(), index


def parse_index(data: bytes) -> list[Member]:
    """Members in tar order."""
    rows = (line.split("\t") for line in data.decode().splitlines())
    return [Member(name, int(offset), int(num_bytes)) for name, offset, num_bytes in rows]


def read_index(store: Store, tar_path: str) -> list[Member]:
    """Members of the tar at ``tar_path``, from the index beside it."""
    return parse_index(store.read(f"{tar_path}.idx"))


def read_member(store: Store, tar_path: str, member: Member) -> bytes:
    """One member's data by range read."""
    return store.read(tar_path, member.offset, member.num_bytes)
