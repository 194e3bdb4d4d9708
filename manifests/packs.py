"""Reading a pack: documents of a split in order, members by range read through the shard index.

Plain ``webdataset`` reads the same shards; this reader adds random access, which exact resume rests on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import decode_flac
from manifests.contracts import Audio
from manifests.errors import RequestError, WorkError, parsing
from manifests.ids import digest_json
from manifests.store import Store, json_bytes
from manifests.tars import Member, read_index, read_member, read_true_index

FORMAT_VERSION = 2
TAKEN = "takedowns.json"
AUDIO = ".flac"  # how a member of audio is called, behind document and turn


@dataclass(frozen=True)
class Turn:
    """One turn of a document: what is said, by whom, and how it sounds."""

    role: str | None  # human | assistant, in a conversation
    text: str | None
    language: str | None  # ISO 639-1
    speaker: str | None  # local to the recording
    audio: Audio | None  # float32 [S] at the pack's rate
    codes: np.ndarray | None  # uint16 [frames]
    facts: Mapping[str, Any]  # all that K.json has of the turn: its clips with words and tags, captions, source, licence


@dataclass(frozen=True)
class Document:
    """What one training example is made from; one of a clip or of plain text has one turn."""

    key: str
    facts: Mapping[str, Any]  # K.json
    turns: tuple[Turn, ...]
    relation: str | None  # of a turn to the one before: reply | translation | continuation


@dataclass(frozen=True)
class TakenDocuments:
    """Documents that one takedown took out of a pack, in ``takedowns.json`` beside ``pack.json``; the shards still hold them."""

    takedown_ids: list[str]
    reason: str
    decided_at: str  # ISO 8601, UTC
    pack_id: str  # of the pack before
    keys: list[str]


def read_taken(store: Store, head: Mapping[str, Any]) -> list[TakenDocuments]:
    """The earliest first, but for those that ``head`` says are out of the shards. Raises WorkError where the file is damaged."""
    try:
        data = store.read(TAKEN)
    except FileNotFoundError:
        return []
    with parsing(store.uri, TAKEN):
        rows, gone = json.loads(data), {row["pack_id"] for row in head.get("takedowns", ())}
        return [TakenDocuments(**row) for row in rows if row["pack_id"] not in gone]


def write_taken(store: Store, taken: Sequence[TakenDocuments]) -> None:
    store.replace(TAKEN, json_bytes([asdict(row) for row in taken]))


def taken_pack_id(pack_id: str, keys: Collection[str]) -> str:
    """Id of what is left of a pack without some documents."""
    return digest_json([pack_id, sorted(keys)]) if keys else pack_id


def is_pack(uri: str) -> bool:
    """Whether a pack lies at the URI, and no corpus."""
    store = Store(uri)
    return store.exists("pack.json") and not store.exists("corpus.json")


class Pack:
    """A pack on any fsspec URI."""

    def __init__(self, store: Store, head: dict[str, Any], taken: Sequence[TakenDocuments] = ()) -> None:
        self.store, self.head, self.taken = store, head, list(taken)
        self.taken_keys = frozenset(key for taken in self.taken for key in taken.keys)
        self._members: dict[str, dict[str, list[Member]]] = {}  # of the shards that were opened, by key

    @staticmethod
    def open(uri: str) -> Pack:
        """Raises RequestError when there is no pack at the URI, or one whose head cannot be read."""
        store = Store(uri)
        try:
            head = json.loads(store.read("pack.json"))
        except FileNotFoundError as error:
            raise RequestError(
                f"no pack at {uri!r} (no pack.json); make one with `stepwell corpus pack CORPUS --out {uri}`"
            ) from error
        except ValueError as error:
            raise RequestError(f"pack {uri!r}: pack.json is not JSON ({error}); bring it back, or pack again") from error
        if head.get("format_version") != FORMAT_VERSION:
            raise RequestError(f"pack {uri!r} has format {head.get('format_version')!r}; this version reads {FORMAT_VERSION}")
        return Pack(store, head, read_taken(store, head))

    @property
    def pack_id(self) -> str:
        """Digest of everything that decides the pack's content: another one when documents were taken down."""
        return taken_pack_id(str(self.head["pack_id"]), self.taken_keys)

    @property
    def all_ids(self) -> list[str]:
        """Every id that the pack had, the first first, and has: what was trained before a takedown knows it by another one."""
        earlier = [str(row["pack_id"]) for row in self.head.get("takedowns", ())]
        return [*earlier, *(row.pack_id for row in self.taken), self.pack_id]

    @property
    def splits(self) -> list[str]:
        return list(self.head["splits"])

    @property
    def sample_rate_hz(self) -> int:
        return int(self.head["sample_rate_hz"])

    def documents(self, split: str) -> pa.Table:
        """DOCUMENTS of a split, in shard order, without those that were taken down.

        Raises RequestError for a split that the pack does not have, WorkError where its table is gone or damaged.
        """
        if split not in self.splits:
            raise RequestError(f"pack {self.store.uri!r} has no split {split!r}; it has {self.splits}: name one of these")
        path = f"manifest/{split}.parquet"
        try:
            rows = self.store.read_table(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise WorkError(
                f"pack {self.store.uri!r}: {path}, the table of its split {split!r}, cannot be read "
                f"({type(error).__name__}: {' '.join(str(error).split())}); bring it back, or pack again"
            ) from error
        return self.without_taken(rows)

    def without_taken(self, rows: pa.Table) -> pa.Table:
        """DOCUMENTS rows with at least the column ``key``, without those that were taken down."""
        if not self.taken_keys:
            return rows
        return rows.filter(pc.invert(pc.is_in(rows["key"], value_set=pa.array(sorted(self.taken_keys), pa.string()))))

    def read(self, shard: str, key: str, *, with_audio: bool = True) -> Document:
        """One document by shard and key, as ``documents`` lists them. Raises RequestError for one that was taken down.

        Audio that nobody wants need not be decoded, which is nearly all of the time that reading takes.
        """
        if key in self.taken_keys:
            raise RequestError(f"document {key!r} of pack {self.store.uri!r} was taken down; leave it out")
        members = self._data(shard, key)
        if not with_audio:
            members = {name: data for name, data in members.items() if not name.endswith(AUDIO)}
        facts = json.loads(members[f"{key}.json"])
        turns = tuple(_turn(members, f"{key}.{number}", turn) for number, turn in enumerate(facts["turns"]))
        return Document(key, facts, turns, facts["relation"])

    def members(self, shard: str, key: str) -> list[str]:
        """Names of a document's members."""
        return [member.name for member in self._index(shard).get(key, ())]

    def member(self, shard: str, name: str) -> bytes:
        """The bytes of a member, by range read."""
        places = {member.name: member for member in self._index(shard)[name.partition(".")[0]]}
        return read_member(self.store, f"shards/{shard}", places[name])

    def _data(self, shard: str, key: str) -> dict[str, bytes]:
        """Members of a document by name. They lie side by side: one read for all takes half as long as one for each."""
        places = self._index(shard)[key]
        start, stop = places[0].offset, places[-1].offset + places[-1].num_bytes
        data = self.store.read(f"shards/{shard}", start, stop - start)
        return {name: data[offset - start : offset - start + num_bytes] for name, offset, num_bytes in places}

    def _index(self, shard: str) -> dict[str, list[Member]]:
        """The shard's members by key, in the order of the tar."""
        if shard not in self._members:
            # Where documents have to go, a rewriting may have been killed between a shard and its index.
            read = read_true_index if self.taken else read_index
            found: dict[str, list[Member]] = {}
            for member in read(self.store, f"shards/{shard}"):
                found.setdefault(member.name.partition(".")[0], []).append(member)
            self._members[shard] = found
        return self._members[shard]


def _turn(members: Mapping[str, bytes], name: str, facts: Mapping[str, Any]) -> Turn:
    """The turn whose members begin with ``name``."""
    audio, codes = members.get(name + AUDIO), members.get(f"{name}.codes.npy")
    role, text, language, speaker = (facts.get(fact) for fact in ("role", "text", "language", "speaker_label"))
    return Turn(
        role,
        text,
        language,
        speaker,
        None if audio is None else decode_flac(audio)[0],
        None if codes is None else parse_codes(codes),
        facts,
    )


def parse_codes(data: bytes) -> np.ndarray:
    """Of an .npy file, read-only where it holds uint16 ``[frames]`` as ``np.save`` writes it, which takes NumPy 40 µs to find out."""
    end = 10 + int.from_bytes(data[8:10], "little")  # of the header of version 1
    codes = np.frombuffer(data, "<u2", offset=end) if len(data) % 2 == 0 and data[6:7] == b"\x01" else np.zeros(0, "<u2")
    if data[10:end].rstrip() == b"{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }" % len(codes):
        return codes
    return np.load(io.BytesIO(data))
