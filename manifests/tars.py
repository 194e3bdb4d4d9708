"""Uncompressed tars with an index, written so that equal members give equal bytes, read by plain offset.

The index (``<tar>.idx``) is text, one line a member: name, data offset, data bytes, separated by tabs. It is written
together with the tar, so nothing ever scans a tar to find a member.
"""

from __future__ import annotations

import io
import tarfile
from typing import NamedTuple

from manifests.store import Store


class Member(NamedTuple):
    """Where one member's data lies in its tar."""

    name: str
    offset: int
    num_bytes: int


class TarWriter:
    """Collects members in order; ``close`` returns (tar bytes, index bytes)."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed below)
        self.members: list[Member] = []

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the end blocks."""
        return self._buffer.tell()

    def add(self, name: str, data: bytes) -> Member:
        """Append a member; its header holds no clock, owner or host."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o444
        self._tar.addfile(info, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        member = Member(name, self._buffer.tell() - padded, len(data))
        self.members.append(member)
        return member

    def close(self) -> tuple[bytes, bytes]:
        self._tar.close()
        index = "".join(f"{m.name}\t{m.offset}\t{m.num_bytes}\n" for m in self.members)
        return self._buffer.getvalue(), index.encode()


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
