"""Checks of snapshots, and of the compactions and decision tables that they name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pyarrow as pa

from manifests.commits import ObjectFact, commit_path, list_commits
from manifests.compacted import CompactedPart, Compaction, parse_compaction
from manifests.console import progress
from manifests.decision_tables import FOLDER as DECISIONS
from manifests.decision_tables import parse_decision_table
from manifests.ids import digest_blocks
from manifests.snapshots import Snapshot, parse_snapshot, snapshot_number
from manifests.store import COPY_BYTES, ObjectDetail, Store
from manifests.tables import open_part
from pipeline.faults import Fault, said

Output = tuple[str, str]  # output, fingerprint
NOT_ONE = (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError)  # what bytes that are no snapshot end in


@dataclass
class Places:
    """Where the newest snapshot has tables in parts, and which of these and of its decision tables are damaged."""

    compactions: dict[Output, Compaction] = field(default_factory=dict)
    bad_parts: set[str] = field(default_factory=set)
    bad_compactions: set[Output] = field(default_factory=set)
    bad_tables: set[str] = field(default_factory=set)  # paths of heads


class SnapshotCheck:
    """After ``run``: ``faults``, the ``snapshots`` that can be used, oldest first, and the ``places`` of the newest.

    ``newest`` is the last one, or what stands for it: where that is damaged, the one before with the newest compactions;
    without any, one made from the commits, in which the fingerprints that most units have are current. None where
    nothing was ever published.
    """

    def __init__(self, store: Store, details: Mapping[str, ObjectDetail], fast: bool) -> None:
        self._store, self._details, self._fast = store, details, fast
        self.faults: list[Fault] = []
        self.snapshots: list[Snapshot] = []
        self.newest: Snapshot | None = None
        self.last_number = -1  # of the newest that is there, whether it can be read or not
        self.places = Places()
        self.is_newest_lost = False
        self.unreadable: set[Output] = set()  # those of which some compaction cannot be read: nobody knows its parts
        self.unreadable_tables: set[str] = set()  # names of decision tables, likewise
        self._compactions: dict[str, Compaction] = {}

    def run(self) -> None:
        numbers = sorted(number for number in map(snapshot_number, self._details) if number >= 0)
        self.last_number = max(numbers, default=-1)
        for before, after in pairwise(numbers):
            if after != before + 1:
                self._fault("snapshot_gap", Snapshot.path(before), f"the next number is {after}; numbers have no gaps")
        for number in numbers:
            snapshot = self._read(number)
            if snapshot is not None:
                self.snapshots.append(snapshot)
        if not numbers and any(path.startswith("compacted/") for path in self._details):
            self._fault("snapshot_missing", "snapshots", "tables lie in compacted parts, and no snapshot says which")
            self.is_newest_lost = True
        if numbers and (not self.snapshots or self.snapshots[-1].number != numbers[-1]):
            self.is_newest_lost = self._store.exists(Snapshot.path(numbers[-1]))
        self.newest = self.snapshots[-1] if self.snapshots else None
        if self.is_newest_lost:
            self.newest = self._recovered(self.newest)
        self._check_compactions()
        self._check_tables()

    def _read(self, number: int) -> Snapshot | None:
        path = Snapshot.path(number)
        try:
            snapshot = parse_snapshot(self._store.read(path))
            done = [(o, mark, unit) for o, made in snapshot.outputs.items() for mark, units in made.items() for unit in units]
            commits = [commit_path(*key) for key in done]
            if snapshot.number != number:
                raise ValueError(f"it has number {snapshot.number}")
        except NOT_ONE as error:
            if self._store.exists(path):  # else a garbage collection took it
                self._fault("snapshot_unreadable", path, f"not a snapshot ({said(error)})")
            return None
        missing = [commit for commit in commits if commit not in self._details and not self._store.exists(commit)]
        if missing:
            what = f"{len(missing)} commits are not there, the first {missing[0]!r}"
            self._fault("snapshot_names_missing_commit", path, what)
        return snapshot

    def _recovered(self, before: Snapshot | None) -> Snapshot:
        """What stands for a newest snapshot that is lost."""
        committed = list_commits(self._store)
        if before is None:
            marks: dict[str, str] = {}
            for (output, mark), _ in sorted(committed.items(), key=lambda item: len(item[1])):
                marks[output] = mark
            clip_sets = [output for output in marks if output.startswith("clips/")]
            clip_sets.sort(key=lambda output: len(committed[output, marks[output]]))
            before = Snapshot(-1, [], {}, marks, clip_sets[-1].removeprefix("clips/") if clip_sets else "")
        finished = [set(committed.get(key, ())) for key in before.current.items()]
        units = sorted(set(before.units) | (set.intersection(*finished) if finished else set()))
        compacted: dict[str, dict[str, str]] = {}
        found = [path for path in self._details if path.startswith("compacted/") and path.endswith(".json")]
        for path in sorted(found, key=lambda path: (self._details[path].modified_at_s or 0.0, path)):
            output, mark, _ = path.removeprefix("compacted/").rsplit("/", 2)
            try:
                parse_compaction(self._store.read(path))
                compacted.setdefault(output, {})[mark] = path
            except NOT_ONE:
                continue
        tables: dict[str, str] = {}
        heads = [path for path in self._details if path.startswith(f"{DECISIONS}/") and path.endswith(".json")]
        for path in sorted(heads, key=lambda path: (self._details[path].modified_at_s or 0.0, path)):
            with suppress(*NOT_ONE):
                tables[parse_decision_table(self._store.read(path)).name] = path
        outputs: dict[str, dict[str, list[str]]] = {}
        for (output, mark), done in committed.items():
            outputs.setdefault(output, {})[mark] = [unit for unit in done if unit in set(units)]
        return replace(before, units=units, outputs=outputs, compacted=compacted, holdings=[], tables=tables)

    def _check_compactions(self) -> None:
        """All can be read; of the newest snapshot's, every part is what it says."""
        newest = [self.newest] if self.newest else []
        bad: set[str] = set()
        for snapshot in [*self.snapshots, *newest]:
            for output, mark, path in ((o, mark, path) for o, made in snapshot.compacted.items() for mark, path in made.items()):
                if path not in self._compactions and path not in bad and not self._can_read(output, mark, path):
                    bad.add(path)
                    self.unreadable.add((output, mark))
                if snapshot is self.newest and path in bad:
                    self.places.bad_compactions.add((output, mark))
                elif snapshot is self.newest:
                    self.places.compactions[output, mark] = self._compactions[path]
        self.snapshots = [_without(snapshot, bad) for snapshot in self.snapshots]
        parts = [part for compaction in self.places.compactions.values() for part in compaction.parts]
        with progress() as bars:
            bar = bars.task("fsck: parts", len(parts), "parts")
            for part in parts:
                if fault := self._part_fault(part):
                    self.places.bad_parts.add(part.path)
                    self._fault(*fault)
                bar.advance()

    def _can_read(self, output: str, mark: str, path: str) -> bool:
        try:
            compaction = parse_compaction(self._store.read(path))
            if (compaction.output, compaction.fingerprint) != (output, mark):
                raise ValueError(f"it is of {compaction.output!r} ({compaction.fingerprint})")
        except NOT_ONE as error:
            self._fault("compaction_unreadable", path, f"not the compaction of {output!r} ({said(error)})")
            return False
        self._compactions[path] = compaction
        return True

    def _part_fault(self, part: CompactedPart) -> tuple[str, str, str] | None:
        """(code, path, what) of the first thing that is wrong with a part."""
        try:
            if fault := self._object_fault(part, "its compaction"):
                return f"part_{fault[0]}", part.path, fault[1]
            with open_part(self._store, part.path) as table:
                rows = [table.metadata.row_group(number).num_rows for number in part.row_groups]
        except FileNotFoundError:
            return "part_missing", part.path, "its compaction names it, and it is gone"
        except (pa.ArrowException, OSError, IndexError) as error:
            return "part_rows", part.path, said(error)
        return None if rows == part.num_rows else ("part_rows", part.path, "row groups have other rows than its compaction says")

    def _object_fault(self, fact: CompactedPart | ObjectFact, who: str) -> tuple[str, str] | None:
        """(size or digest, what) where an object is not what ``who`` says. Raises FileNotFoundError where it is gone."""
        num_bytes = self._store.size(fact.path)
        if num_bytes != fact.num_bytes:
            return "size", f"{num_bytes} bytes; {who} says {fact.num_bytes}"
        if not self._fast:
            with self._store.open(fact.path) as file:
                digest = digest_blocks(iter(lambda: file.read(COPY_BYTES), b"")).hex()
            if digest != fact.digest:
                return "digest", f"digest {digest}; {who} says {fact.digest}"
        return None

    def _check_tables(self) -> None:
        """Heads of decision tables can be read; of the newest snapshot's, every object is what its head says."""
        newest = {} if self.newest is None else self.newest.tables
        heads = {path: name for snapshot in self.snapshots for name, path in snapshot.tables.items()} | {
            path: name for name, path in newest.items()
        }
        bad = set()
        for path, name in sorted(heads.items()):
            try:
                head = parse_decision_table(self._store.read(path))
            except NOT_ONE as error:
                bad.add(path)
                self.unreadable_tables.add(name)
                self._fault("decision_unreadable", path, f"not the head of table {name!r} ({said(error)})")
                continue
            for fact in head.objects if path in newest.values() else ():
                try:
                    fault = self._object_fault(fact, "its head")
                except FileNotFoundError:
                    fault = ("missing", "its head names it, and it is gone")
                if fault:
                    bad.add(path)
                    self._fault("decision_object", fact.path, fault[1])
        self.places.bad_tables = bad
        self.snapshots = [
            replace(snapshot, tables={name: path for name, path in snapshot.tables.items() if name not in self.unreadable_tables})
            for snapshot in self.snapshots
        ]

    def _fault(self, code: str, path: str, what: str) -> None:
        self.faults.append(Fault(code, path, what))


def _without(snapshot: Snapshot, bad: set[str]) -> Snapshot:
    """The snapshot without the compactions that cannot be read."""
    kept = {o: {mark: path for mark, path in made.items() if path not in bad} for o, made in snapshot.compacted.items()}
    return replace(snapshot, compacted=kept)
