"""Checks of stored audio: a unit's tar, its index, and the pieces that its recordings must have."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from manifests.audio import PIECE_S, piece_name
from manifests.commits import Commit
from manifests.errors import ContractError
from manifests.ids import ID_BYTES, digest_bytes
from manifests.store import COPY_BYTES, ObjectDetail, Store
from manifests.tars import BLOCK_BYTES, Member, end_blocks, header, index_bytes, padding, parse_index, scan_members
from pipeline.faults import Fault, Key

FLAC_HEADER_BYTES = 42  # the mark, a block header, STREAMINFO


class FlacFacts(NamedTuple):
    """What the header of a FLAC stream says."""

    sample_rate_hz: int
    num_channels: int
    bits: int
    num_samples: int


def parse_flac(data: bytes) -> FlacFacts | None:
    """The facts in the first FLAC_HEADER_BYTES of a stream (RFC 9639, section 8); None where it is none."""
    if len(data) < FLAC_HEADER_BYTES or data[:4] != b"fLaC" or data[4] & 0x7F:
        return None
    packed = int.from_bytes(data[18:26], "big")  # 20 bits rate, 3 channels, 5 bits a sample, 36 samples
    return FlacFacts(packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1)


class AudioCheck:
    """The audio of one ingest commit; ``faults`` are filled by ``run``. ``fast`` leaves out the digest of the tar."""

    def __init__(self, store: Store, commit: Commit, details: Mapping[str, ObjectDetail], fast: bool) -> None:
        self._store, self._details, self._fast = store, details, fast
        self._tar, self._index = commit.objects["audio"], commit.objects["audio_index"]
        self._key: Key = (commit.output, commit.fingerprint, commit.unit)
        self.faults: list[Fault] = []
        self.rebuilt: dict[str, bytes] = {}  # path -> bytes that a lost or stale index must have

    def run(self, recordings: Sequence[Mapping[str, Any]] | None) -> None:
        """Check tar, index and pieces; the pieces only where the recordings (RECORDINGS rows) are known."""
        num_bytes = self._num_bytes(self._tar.path)
        if num_bytes is None:
            return self._fault("object_missing", "its commit names it, and it is gone")
        if num_bytes != self._tar.num_bytes:
            return self._fault("object_size", f"{num_bytes} bytes; its commit says {self._tar.num_bytes}")
        members = self._members()
        if members is None:
            return None
        found, wrong, digest = self._read(members)
        if not self._fast and digest != self._tar.digest:
            return self._fault("object_digest", f"digest {digest}; its commit says {self._tar.digest}")
        self.faults += wrong
        if recordings is not None and not wrong:
            self._check_pieces(found, recordings)
        return None

    def _members(self) -> list[Member] | None:
        """What the index says, or, where it is lost or stale and the tar is well, what it must say."""
        path, code = self._index.path, "index_wrong"
        data = self._store.read(path) if self._num_bytes(path) is not None else None
        if data is not None and digest_bytes(data).hex() == self._index.digest:
            return parse_index(data)
        if data is None:
            code = "index_missing"
        try:
            with self._store.open(self._tar.path) as file:
                index = index_bytes(scan_members(file))
        except (tarfile.TarError, EOFError) as error:
            index = str(error).encode()
        if digest_bytes(index).hex() == self._index.digest:
            self.rebuilt[path] = index
            self.faults.append(Fault(code, path, "it is not what its commit says; the tar is well"))
            return parse_index(index)
        # Which of the two is damaged shows the tar's own digest: where that holds, the index was wrong when it was made.
        self._fault(code, "it is not what its commit says, nor what the tar says", path)
        return None

    def _read(self, members: Sequence[Member]) -> tuple[dict[str, FlacFacts], list[Fault], str]:
        """(pieces, faults, digest) from one pass over the tar; the digest is of what was read."""
        state, facts, wrong, end = hashlib.blake2b(digest_size=ID_BYTES), dict[str, FlacFacts](), list[Fault](), 0
        with self._store.open(self._tar.path) as file:
            for member in members:
                if member.offset != end + BLOCK_BYTES:
                    wrong.append(
                        self._made("tar_member", f"index has {member.name!r} at {member.offset}; it begins at {end + 512}")
                    )
                    break
                file.seek(end)
                head = file.read(BLOCK_BYTES + FLAC_HEADER_BYTES)
                state.update(head)
                if head[:BLOCK_BYTES] != _header(member):
                    wrong.append(
                        self._made("tar_member", f"no member {member.name!r} of {member.num_bytes} bytes at {member.offset}")
                    )
                flac = parse_flac(head[BLOCK_BYTES:])
                if flac is None:
                    wrong.append(self._made("piece_wrong", f"{member.name!r} is no FLAC stream"))
                else:
                    facts[member.name] = flac
                end = member.offset + member.num_bytes + len(padding(member.num_bytes))
                if not self._fast:
                    _update(state, file, end - file.tell())
            if not wrong and self._tar.num_bytes != end + len(end_blocks(end)):
                wrong.append(self._made("tar_member", f"{self._tar.num_bytes} bytes; the index explains {end} and the end"))
            if not self._fast:
                _update(state, file, self._tar.num_bytes - file.tell())
        return facts, wrong, state.hexdigest()

    def _check_pieces(self, found: Mapping[str, FlacFacts], recordings: Sequence[Mapping[str, Any]]) -> None:
        wanted: dict[str, FlacFacts] = {}
        for row in recordings:
            step = PIECE_S * row["sample_rate_hz"]
            for piece, start in enumerate(range(0, row["num_samples"], step)):
                facts = FlacFacts(row["sample_rate_hz"], 1, row["stored_bits"], min(step, row["num_samples"] - start))
                wanted |= {piece_name(row["recording_id"], channel, piece): facts for channel in range(row["num_channels"])}
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found:
                self._fault("piece_missing", f"{name!r} of a recording of the unit is not in the tar")
            elif name not in wanted:
                self._fault("piece_unknown", f"{name!r} is of no recording of the unit")
            elif found[name] != wanted[name]:
                self._fault("piece_wrong", f"{name!r} is {found[name]}; the recording needs {wanted[name]}")

    def _num_bytes(self, path: str) -> int | None:
        """None where the object is gone; one that came after the listing is asked for."""
        if path in self._details:
            return self._details[path].num_bytes
        return self._store.size(path) if self._store.exists(path) else None

    def _fault(self, code: str, what: str, path: str = "") -> None:
        self.faults.append(self._made(code, what, path))

    def _made(self, code: str, what: str, path: str = "") -> Fault:
        return Fault(code, path or self._tar.path, what, (self._key,))


def _header(member: Member) -> bytes:
    try:
        return header(member.name, member.num_bytes)
    except ContractError:
        return b""  # a name that no writer of ours would take


def _update(state: hashlib.blake2b, file: BinaryIO, num_bytes: int) -> None:
    while num_bytes > 0 and (block := file.read(min(num_bytes, COPY_BYTES))):
        state.update(block)
        num_bytes -= len(block)
