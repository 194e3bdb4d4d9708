"""How a unit's output becomes visible: objects under names of their own, then one commit file, created only if absent.

``commits/<output>/<fingerprint>/<unit>.json`` says what one unit wrote of one output, with sizes and checksums. Who
comes second deletes its own objects and nothing else. No lease, no rename, no clock takes part.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

import pyarrow as pa

from manifests.errors import parsing
from manifests.ids import digest_blocks, digest_bytes, new_attempt_id
from manifests.store import Store, json_bytes, table_bytes

DIGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class ObjectFact:
    """One object of a commit."""

    path: str
    num_bytes: int
    digest: str  # hex, manifests.ids.digest_bytes
    num_rows: int | None = None  # tables only


@dataclass(frozen=True)
class Commit:
    """What one unit wrote of one output. ``objects`` maps a role (``clips``, ``layer``, ``audio``) to an object."""

    output: str
    fingerprint: str
    unit: str
    objects: dict[str, ObjectFact]
    reads: dict[str, str] = field(default_factory=dict)  # output -> fingerprint

    @property
    def path(self) -> str:
        return commit_path(self.output, self.fingerprint, self.unit)


def commit_path(output: str, fingerprint: str, unit: str) -> str:
    return f"commits/{output}/{fingerprint}/{unit}.json"


def split_commit_path(path: str) -> tuple[str, str, str]:
    """(output, fingerprint, unit) of a path below ``commits/``."""
    output, fingerprint, name = path.removeprefix("commits/").rsplit("/", 2)
    return output, fingerprint, name.removesuffix(".json")


def read_commit(store: Store, output: str, fingerprint: str, unit: str) -> Commit | None:
    """The commit of a unit's output, or None when there is none yet. Raises WorkError where it is damaged."""
    path = commit_path(output, fingerprint, unit)
    try:
        data = store.read(path)
    except FileNotFoundError:
        return None
    with parsing(store.uri, path):
        return parse_commit(data)


def parse_commit(data: bytes) -> Commit:
    """The commit in a commit file. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    row = json.loads(data)
    row["objects"] = {role: ObjectFact(**fact) for role, fact in row["objects"].items()}
    return Commit(**row)


def list_commits(store: Store) -> dict[tuple[str, str], list[str]]:
    """(output, fingerprint) -> units that committed it, sorted; one listing for the whole corpus."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in store.objects("commits"):
        output, fingerprint, unit = split_commit_path(path)
        found.setdefault((output, fingerprint), []).append(unit)
    return {key: sorted(units) for key, units in found.items()}


class Attempt:
    """One try to write one unit of one output; its object names carry a random attempt id."""

    def __init__(self, store: Store, output: str, fingerprint: str, unit: str, reads: dict[str, str] | None = None):
        self.store, self.output, self.fingerprint, self.unit = store, output, fingerprint, unit
        self.reads = dict(reads or {})
        self.attempt = new_attempt_id()
        self.objects: dict[str, ObjectFact] = {}

    def put(self, role: str, folder: str, suffix: str, data: bytes, num_rows: int | None = None) -> str:
        """Write an object ``<folder>/<unit>-<attempt><suffix>`` and return its path."""
        path = f"{folder}/{self.unit}-{self.attempt}{suffix}"
        self.store.write(path, data)
        self.objects[role] = ObjectFact(path, len(data), digest_bytes(data).hex(), num_rows)
        return path

    def put_file(self, role: str, folder: str, suffix: str, file: BinaryIO) -> str:
        """``put`` for what is too large for memory: all of a local, seekable file."""
        path = f"{folder}/{self.unit}-{self.attempt}{suffix}"
        self.store.write_file(path, file)
        num_bytes = file.tell()
        file.seek(0)
        digest = digest_blocks(iter(lambda: file.read(DIGEST_BYTES), b""))
        self.objects[role] = ObjectFact(path, num_bytes, digest.hex())
        return path

    def put_table(self, role: str, folder: str, table: pa.Table) -> str:
        return self.put(role, folder, ".parquet", table_bytes(table), table.num_rows)

    def commit(self) -> bool:
        """Publish; False when another attempt was first (this one's objects are then removed).

        Whatever ends the creation, objects go only where the commit that stands does not name them: an interruption after
        the link, or a store's answer that got lost, must not empty a published commit. Raises FileNotFoundError, an OSError
        and so tried again, when objects were collected meanwhile: this attempt is older than the grace (a laptop slept).
        """
        for fact in self.objects.values():
            if not self.store.exists(fact.path):
                self.discard()
                raise FileNotFoundError(f"{fact.path!r} was collected before unit {self.unit} was committed; do the unit again")
        made = Commit(self.output, self.fingerprint, self.unit, self.objects, self.reads)
        try:
            self.store.create(made.path, json_bytes(asdict(made)))
        finally:
            standing = read_commit(self.store, self.output, self.fingerprint, self.unit)
            is_ours = standing == made
            if not is_ours:
                self.discard()
        return is_ours

    def discard(self) -> None:
        """Remove what this attempt wrote."""
        for fact in self.objects.values():
            self.store.remove(fact.path)
        self.objects = {}
