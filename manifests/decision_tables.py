"""Decision tables: corpus-wide results over one snapshot, e.g. who speaks (``speaker_id``), duplicates, takedowns.

``tables/<name>/<fingerprint>/`` holds Parquet objects and a *head*: a JSON that names them and says what they were made
from. A head counts once a snapshot names it (``Snapshot.tables``), and a snapshot is created only if absent: of two runs
that decide at once, one finds the other's table there and starts again from it. All have names of their own and never
change; a head may name objects of the table that it goes on from, the rows of units that nobody had to look at again.

The tables behind one head are its *roles*. Of some there is one for the whole corpus (a row a speaker, say); of others
one for each unit, a row a clip, in the order of the unit's clips as the snapshot shows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Self, TypeVar

import pyarrow as pa

from manifests.commits import ObjectFact
from manifests.compacted import CompactedPart, RowGroup
from manifests.console import say
from manifests.errors import ContractError, parsing
from manifests.ids import new_attempt_id
from manifests.schema import check_table
from manifests.snapshots import Snapshot, clips_output, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store, json_bytes
from manifests.tables import TableFile

FOLDER = "tables"
Result = TypeVar("Result")


@dataclass(frozen=True)
class DecisionTable:
    """The head of a decision table.

    ``snapshot`` is the one that it was made over, ``reads`` maps output -> fingerprint, ``parent`` is the fingerprint of the
    table that it goes on from. ``shadowed`` is the snapshot's: the clips of a unit, and so its rows, depend on it.
    """

    name: str
    fingerprint: str
    snapshot: int
    reads: dict[str, str]
    parameters: dict[str, Any]
    parent: str | None = None
    shadowed: dict[str, list[str]] = field(default_factory=dict)
    wholes: dict[str, ObjectFact] = field(default_factory=dict)  # role -> the table of the whole corpus
    parts: list[CompactedPart] = field(default_factory=list)  # tables of units; a role has each unit once

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.name}/{self.fingerprint}"

    @property
    def roles(self) -> list[str]:
        """Those with a table a unit, then those with one for all."""
        return [*dict.fromkeys(part.role for part in self.parts), *self.wholes]

    @property
    def units(self) -> set[str]:
        """Units that it has tables of."""
        return {unit for part in self.parts for unit in part.units}

    @property
    def objects(self) -> list[ObjectFact]:
        """Every object that it names, those of its parents too."""
        return [*self.wholes.values(), *(ObjectFact(p.path, p.num_bytes, p.digest, None) for p in self.parts)]

    def find(self, role: str, unit: str, snapshot: Snapshot) -> RowGroup | None:
        """Where the unit's table is; None where there is none, or one of other clips than ``snapshot`` shows of the unit."""
        clips = clips_output(snapshot.clip_set)
        is_of_these = self.reads.get(clips) == snapshot.current.get(clips)
        is_alike = self.shadowed.get(unit, []) == snapshot.shadowed.get(unit, [])
        return self.held(role, unit) if is_of_these and is_alike else None

    def held(self, role: str, unit: str) -> RowGroup | None:
        """Where a table of the unit is, whichever clips it had when it was made."""
        return next((found for part in self.parts if part.role == role and (found := part.find(unit))), None)


def until_published(attempt: Callable[[], Result | None], sought: str) -> Result:
    """What the first attempt gives that no other run forestalls. ``sought`` says for people what such a run has done."""
    while (made := attempt()) is None:
        say(f"another run has {sought} meanwhile: starting again")
    return made


def read_decision_table(store: Store, path: str) -> DecisionTable:
    """Raises FileNotFoundError where there is none, WorkError where it is damaged. Read once a process: it never changes."""
    return _read_decision_table(store.uri, path)


@lru_cache(maxsize=8)
def _read_decision_table(uri: str, path: str) -> DecisionTable:
    data = Store(uri).read(path)
    with parsing(uri, path):
        return parse_decision_table(data)


def parse_decision_table(data: bytes) -> DecisionTable:
    """A stored head. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    row = json.loads(data)
    row["wholes"] = {role: ObjectFact(**fact) for role, fact in row["wholes"].items()}
    row["parts"] = [CompactedPart(**part) for part in row["parts"]]
    return DecisionTable(**row)


class Draft:
    """A decision table in the making: ``append`` and ``put`` its tables, then ``publish`` it, or ``discard`` what there is.

    As a context, what is not published when it ends is discarded.
    """

    def __init__(self, store: Store, head: DecisionTable) -> None:
        self._store, self._head, self._written = store, head, list[str]()
        self._files: dict[str, TableFile] = {}
        self._units: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def append(self, role: str, unit: str, table: pa.Table, schema: pa.Schema) -> None:
        """The unit's table of a role, one after the other in plan order.

        Raises ContractError for one without ``clip_id``: readers could not leave out the rows of clips that were taken down.
        """
        if "clip_id" not in schema.names:
            raise ContractError(
                f"{self._head.name}/{role}: columns {schema.names} lack clip_id; tables of units name their clips"
            )
        if role not in self._files:
            self._files[role] = TableFile(schema)
        self._files[role].append(check_table(table, schema, f"{self._head.name}/{role} of unit {unit}"))
        self._units.setdefault(role, []).append(unit)

    def put(self, role: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """The table of a role for the whole corpus, its rows one piece after the other."""
        file = TableFile(schema)
        for table in tables:
            file.append(check_table(table, schema, f"{self._head.name}/{role}"))
        self._head = replace(self._head, wholes={**self._head.wholes, role: self._put(role, file)})

    def write(self) -> str:
        """Write the head, and the tables of units that it has; the path of the head."""
        parts = list(self._head.parts)
        for role, file in self._files.items():
            units, rows = self._units[role], file.row_group_rows
            fact = self._put(role, file)
            row_groups = list(range(len(rows)))
            parts.append(CompactedPart(role, units[0], fact.path, fact.num_bytes, fact.digest, units, row_groups, rows))
        self._files, self._head = {}, replace(self._head, parts=parts)
        path = f"{self._head.folder}/{new_attempt_id()}.json"
        self._store.write(path, json_bytes(asdict(self._head)))
        self._written.append(path)
        return path

    def publish(self, before: str | None, amended: Callable[[Snapshot], Snapshot] = lambda made: made) -> Snapshot | None:
        """Write the head and publish a snapshot that names it; ``amended`` says what else changes in that.

        ``before`` is the path of the head that this name had when the work began, None where there was none. None, with
        nothing left behind, when another run has given the name another table since. Raises FileNotFoundError when
        objects were collected meanwhile: this draft is older than the grace.
        """
        path = self.write()
        while True:
            newest = read_snapshot(self._store, latest_snapshot_number(self._store))
            if newest.tables.get(self._head.name) != before:
                self.discard()
                return None
            if lost := [fact.path for fact in self._head.objects if not self._store.exists(fact.path)]:
                raise FileNotFoundError(f"{lost[0]!r} was collected before the table was published; run the same command again")
            made = amended(replace(newest, number=newest.number + 1, tables={**newest.tables, self._head.name: path}))
            # Whatever ends the publication, a snapshot that stands must find its objects: they are the collector's now.
            written, self._written = self._written, []
            if publish_snapshot(self._store, made):
                return made
            self._written = written

    def discard(self) -> None:
        """Remove what this draft wrote."""
        for path in self._written:
            self._store.remove(path)
        self._written = []

    def _put(self, role: str, file: TableFile) -> ObjectFact:
        path = f"{self._head.folder}/{role}-{new_attempt_id()}.parquet"
        self._written.append(path)
        return file.put(self._store, path)
