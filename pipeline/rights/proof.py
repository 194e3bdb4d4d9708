"""``manifest takedown --prove``: every live object is read again, for what has tombstones; the proof is a file.

Looked for are ids (in columns, names and any text), the digests of the bytes that held the audio, of addresses, of
speakers' names and of texts. Equal words that somebody else says are told and are no finding: the rows have ids of their
own, and of those that have tombstones none is left. Digital silence, whose bytes are the same in any recording, is nobody's.
Left out are the tombstones themselves, which keep ids and digests to refuse what comes again, and proofs.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.audio import decode_flac
from manifests.console import ProgressBar, counted, progress, volume
from manifests.corpus import Corpus
from manifests.decision_tables import FOLDER as DECISIONS
from manifests.ids import ID_BYTES, digest_bytes, digest_json
from manifests.schema import ID
from manifests.store import COPY_BYTES, Store, json_bytes
from manifests.tombstones import TABLE, Tombstones, name_digest
from pipeline.rights.object_versions import Versions, find_versions

FORMAT_VERSION = 1
FOLDER = "proofs"
LEFT_OUT = (f"{DECISIONS}/{TABLE}/", f"{FOLDER}/")
ID_KINDS = ("recording", "clip", "input", "speaker")
_BETWEEN = re.compile(r"[\s'\"(),;<>]+")
_HEX_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


@dataclass(frozen=True)
class Needles:
    """What is looked for."""

    tombstones: Tombstones

    @cached_property
    def ids(self) -> dict[bytes, str]:
        """Id -> what it is."""
        return {identity: kind for kind in ID_KINDS for identity in self.tombstones.ids(kind)}

    @cached_property
    def audio(self) -> frozenset[bytes]:
        return self.tombstones.ids("audio")

    @cached_property
    def words(self) -> dict[bytes, str]:
        """Digest of a text -> what it is: uri | speaker | text."""
        rules = self.tombstones.rules.to_pylist()
        names = {bytes.fromhex(row["value"]): "speaker" for row in rules if row["rule"] == "speaker"}
        kinds = {digest: kind for kind in ("text", "uri") for digest in self.tombstones.ids(kind)}
        return {**names, **kinds}

    def to_json(self) -> dict[str, Any]:
        """How many of each, and a digest over all: the proof must not hold what it proves gone."""
        counts = Counter([*self.ids.values(), *self.words.values(), *["audio"] * len(self.audio)])
        every = sorted(value.hex() for value in {*self.ids, *self.words, *self.audio})
        return {"num": dict(sorted(counts.items())), "digest": digest_json(every)}


@dataclass
class ScannedStore:
    """One store, object by object. ``findings`` count by (path, what)."""

    uri: str
    versions: Versions
    objects: list[dict[str, Any]] = field(default_factory=list)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    same_words: Counter[str] = field(default_factory=Counter)  # by path

    def to_json(self) -> dict[str, Any]:
        found = [{"path": path, "what": what, "num": num} for (path, what), num in sorted(self.findings.items())]
        return {
            "uri": self.uri,
            "num_objects": len(self.objects),
            "num_bytes": sum(row["num_bytes"] for row in self.objects),
            "findings": found,
            "same_words": [{"path": path, "num": num} for path, num in sorted(self.same_words.items())],
            "versions": asdict(self.versions),
            "objects": self.objects,
        }


@dataclass(frozen=True)
class Proof:
    """What was searched, where, and what was found; ``path`` is the file in the corpus."""

    path: str
    value: dict[str, Any]

    @property
    def num_findings(self) -> int:
        return int(self.value["num_findings"])

    def lines(self) -> list[str]:
        """The proof for people."""
        stores = self.value["stores"]
        num, num_bytes = sum(row["num_objects"] for row in stores), sum(row["num_bytes"] for row in stores)
        head = f"proof {self.path}: {counted(num, 'object')}, {volume(num_bytes)} read: {counted(self.num_findings, 'finding')}"
        found = [f"  {row['uri']}: {f['path']}: {f['what']}" for row in stores for f in row["findings"]]
        same = sum(len(row["same_words"]) for row in stores)
        lines = [head, *found, *([f"  equal words of others in {counted(same, 'object')}, which is no finding"] if same else [])]
        for row in stores:
            lines += [f"  {row['uri']}: {line}" for line in Versions(**row["versions"]).lines()]
        return lines


def prove(corpus: Corpus, packs: list[str]) -> Proof:
    """Read every live object of the corpus and of the packs, and write what was found to ``proofs/`` of the corpus."""
    needles = Needles(corpus.tombstones)
    stores = [_scan_store(Store(uri), needles) for uri in (corpus.store.uri, *packs)]
    now = datetime.datetime.now(datetime.UTC)
    rules = corpus.tombstones.rules.select(["takedown_id", "rule", "reason", "decided_at"]).to_pylist()
    value = {
        "format_version": FORMAT_VERSION,
        "made_at": now.isoformat(timespec="seconds"),
        "corpus_id": corpus.corpus_id,
        "snapshot": corpus.snapshot.number,
        "takedowns": [
            {**row, "takedown_id": row["takedown_id"].hex(), "decided_at": row["decided_at"].isoformat()} for row in rules
        ],
        "searched": needles.to_json(),
        "left_out": list(LEFT_OUT),
        "stores": [store.to_json() for store in stores],
        "num_findings": sum(store.findings.total() for store in stores),
    }
    path = f"{FOLDER}/{now:%Y%m%dT%H%M%S}-{digest_json(value)[:8]}.json"
    corpus.store.write(path, json_bytes(value))
    return Proof(path, value)


def _scan_store(store: Store, needles: Needles) -> ScannedStore:
    scanned = ScannedStore(store.uri, find_versions(store))
    details = {path: detail for path, detail in store.details().items() if not path.startswith(LEFT_OUT)}
    with progress() as bars:
        total = sum(detail.num_bytes for detail in details.values())
        bar: ProgressBar = bars.task(f"prove: {store.uri}", len(details), "objects", total)
        for path, detail in details.items():
            _ObjectScan(store, path, needles, scanned).run()
            bar.advance(weight=detail.num_bytes)
    return scanned


class _ObjectScan:
    """One object: its name, its bytes, and what they hold once unpacked."""

    def __init__(self, store: Store, path: str, needles: Needles, scanned: ScannedStore) -> None:
        self._store, self._path, self._needles, self._scanned = store, path, needles, scanned

    def run(self) -> None:
        self._look_at_bytes(self._path.encode())
        with self._store.open(self._path) as source:
            file = _Digested(source)
            try:
                self._look_inside(file)
            except (tarfile.TarError, pa.ArrowException, EOFError) as error:
                self._found(f"cannot be read ({type(error).__name__})")
            while file.read(COPY_BYTES):
                pass
        self._scanned.objects.append({"path": self._path, "num_bytes": file.num_bytes, "digest": file.state.hexdigest()})

    def _look_inside(self, file: _Digested) -> None:
        if self._path.endswith(".tar"):
            with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r|") as tar:  # a stream: it only reads on
                for member in tar:
                    data = tar.extractfile(member)
                    if data is not None:
                        self._look_at_member(member.name, data.read())
        elif self._path.endswith(".parquet"):
            self._look_at_table(pq.ParquetFile(io.BytesIO(file.read())))
        else:
            self._look_at_member(self._path, file.read())

    def _look_at_member(self, name: str, data: bytes) -> None:
        self._look_at_bytes(name.encode())
        if digest_bytes(data) in self._needles.audio and not _is_silent(data):
            self._found("audio")
        if name.endswith(".json"):
            self._look_at_bytes(data)
            for text in _strings(json.loads(data)) if _is_json(data) else ():
                self._look_at_text(text)
        elif name.endswith((".idx", ".txt", ".draft", ".jsonl", ".yaml")):
            self._look_at_bytes(data)

    def _look_at_table(self, table: pq.ParquetFile) -> None:
        for number in range(table.num_row_groups):
            for column in table.read_row_group(number, use_threads=False).columns:
                for chunk in column.chunks:
                    self._look_at_column(chunk)

    def _look_at_column(self, values: pa.Array) -> None:
        kind = values.type
        if pa.types.is_struct(kind):
            for child in values.flatten():
                self._look_at_column(child)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            self._look_at_column(values.flatten())
        elif pa.types.is_dictionary(kind):
            self._look_at_column(values.dictionary)
        elif kind == ID:
            # A set of our own: `pc.is_in` would hash all needles again for each of the thousands of small columns.
            for identity in filter(self._needles.ids.__contains__, values.to_pylist()):
                self._found(f"{self._needles.ids[identity]} id")
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            for text in values.unique().drop_null().to_pylist():
                self._look_at_bytes(text.encode())
                self._look_at_text(text)

    def _look_at_bytes(self, data: bytes) -> None:
        """For ids in hex, wherever they stand."""
        for match in _HEX_ID.findall(data):
            if (kind := self._needles.ids.get(bytes.fromhex(match.decode()))) is not None:
                self._found(f"{kind} id")

    def _look_at_text(self, text: str) -> None:
        """For a whole text, address or name, a name behind its source, or an address among other words."""
        addresses = [word for word in _BETWEEN.split(text) if "/" in word]
        for part in {text, text.rpartition(":")[2], *addresses}:
            kind = self._needles.words.get(name_digest(part))
            if kind == "text":
                self._scanned.same_words[self._path] += 1
            elif kind is not None:
                self._found(kind)

    def _found(self, what: str) -> None:
        self._scanned.findings[self._path, what] += 1


class _Digested:
    """A file that is read once from its start to its end, with the digest of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.num_bytes = file, 0
        self.state = hashlib.blake2b(digest_size=ID_BYTES)

    def read(self, num_bytes: int = -1) -> bytes:
        data = self._file.read(num_bytes)
        self.state.update(data)
        self.num_bytes += len(data)
        return data


def _is_silent(data: bytes) -> bool:
    """Whether the bytes of stored audio are of digital silence."""
    return not decode_flac(data)[0].any()


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
