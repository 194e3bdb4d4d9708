"""What nobody can need any more: objects that neither a commit nor a snapshot that may still be read names.

A snapshot may still be read as long as the one after it is younger than the grace: whoever opened it just before it was
superseded goes on for that long. An object goes only when it is older than the grace itself, for it may belong to work
that has not committed yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from manifests.commits import Commit, parse_commit, split_commit_path
from manifests.compacted import Compaction, read_compaction
from manifests.decision_tables import FOLDER as DECISIONS
from manifests.decision_tables import read_decision_table
from manifests.errors import parsing
from manifests.snapshots import TABLES, Snapshot, read_snapshot, snapshot_number, table_roles
from manifests.store import ObjectDetail, Store

GRACE_S = 24 * 3600.0
# Folders whose objects count only when something names them. Everything else in a store is left alone.
FOLDERS = (
    *TABLES["ingest"],
    "audio",
    "spans",
    "failures",
    "clips",
    "layers",
    "compacted",
    "holdings",
    DECISIONS,
    "checkpoints",
    "snapshots",
)
Details = Mapping[str, ObjectDetail]


@dataclass(frozen=True)
class Removed:
    """What was removed."""

    num_objects: int
    num_bytes: int


def collect(store: Store, grace_s: float) -> Removed:
    """Remove what nobody can need any more. Raises WorkError, with nothing removed, when a commit, snapshot or compaction is damaged.

    Costs one listing and one read a commit.
    """
    now_s = time.time()
    details = store.details()  # before the names are read: what comes after is not in it
    kept = kept_snapshots(details, now_s, grace_s)
    views = _still_there(store, kept)
    if kept and (not views or views[-1].number != kept[-1]):
        return Removed(0, 0)  # the listing is older than what other collections have removed since: theirs do
    needed = Needed(views)
    for path, data in store.read_all(sorted(path for path in details if path.startswith("commits/") and path.endswith(".json"))):
        with parsing(store.uri, path):
            needed.add(parse_commit(data))
    return remove(store, garbage(details, needed, now_s, grace_s), details)


def _still_there(store: Store, numbers: Iterable[int]) -> list[SnapshotView]:
    """The snapshots that no other collection has removed, nor begun to, since they were listed."""
    views = []
    for number in numbers:
        with suppress(FileNotFoundError):
            views.append(SnapshotView(store, read_snapshot(store, number)))
    return views


def remove(store: Store, paths: Iterable[str], details: Details) -> Removed:
    """Snapshots first: a reader finds one whole or not at all."""
    ordered = sorted(paths, key=lambda path: (not path.startswith("snapshots/"), path))
    for path in ordered:
        store.remove(path)
    return Removed(len(ordered), sum(details[path].num_bytes for path in ordered))


def kept_snapshots(details: Details, now_s: float, grace_s: float) -> list[int]:
    """Numbers of the snapshots that may still be read: the newest, and back to the first that was superseded in the grace."""
    numbers = sorted(number for number in map(snapshot_number, details) if number >= 0)
    for at in range(len(numbers) - 1, 0, -1):
        if is_old(details[Snapshot.path(numbers[at])], now_s, grace_s):
            return numbers[at:]
    return numbers


def is_old(detail: ObjectDetail, now_s: float, grace_s: float) -> bool:
    """Whether the object is past the grace; never where the store does not tell its age."""
    return detail.modified_at_s is not None and now_s - detail.modified_at_s >= grace_s


class Needed:
    """What snapshots need, and the commits that are added."""

    def __init__(self, views: Iterable[SnapshotView]) -> None:
        self._views = list(views)
        self._paths = set[str]().union(*(view.paths for view in self._views))
        self._committed: set[tuple[str, str, str]] = set()

    def add(self, commit: Commit, *, replaced: bool = False) -> None:
        """A commit's objects are needed; of its tables with ``replaced``, also those that every snapshot has in a part."""
        key = (commit.output, commit.fingerprint, commit.unit)
        self._committed.add(key)
        for role, fact in commit.objects.items():
            is_table = role in table_roles(commit.output)
            if replaced or not is_table or not self._views or any(view.needs(key, role) for view in self._views):
                self._paths.add(fact.path)

    def is_needed(self, path: str) -> bool:
        """Whether an object in one of FOLDERS has to stay. A checkpoint stays until its unit is committed."""
        if path.startswith("checkpoints/"):
            key = split_commit_path("commits/" + path.removeprefix("checkpoints/").rsplit("/", 1)[0])
            return key not in self._committed
        return path in self._paths


class SnapshotView:
    """What one snapshot needs. What it does not name counts as read from its own object: it may be about to be named.

    Raises FileNotFoundError when a compaction or the head of a decision table that it names is gone.
    """

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.number = snapshot.number
        self._places: dict[tuple[str, str], Compaction] = {}
        self.paths = {Snapshot.path(snapshot.number), *snapshot.holdings}
        for output, made in snapshot.compacted.items():
            for mark, path in made.items():
                self._places[output, mark] = read_compaction(store, path)
                self.paths |= {path, *(part.path for part in self._places[output, mark].parts)}
        for path in snapshot.tables.values():
            self.paths |= {path, *(fact.path for fact in read_decision_table(store, path).objects)}

    def needs(self, key: tuple[str, str, str], role: str) -> bool:
        """Whether the table of a commit is read from its own object."""
        output, fingerprint, unit = key
        place = self._places.get((output, fingerprint))
        return place is None or place.find(role, unit) is None


def garbage(details: Details, needed: Needed, now_s: float, grace_s: float) -> list[str]:
    """Paths of objects past the grace that nothing needs: orphans, what a compaction replaced, drafts and probes."""
    found = []
    for path, detail in details.items():
        is_ours = path.split("/")[0] in FOLDERS and "/" in path
        is_left_over = path.endswith(".draft") or path.startswith(".probe-")
        if is_old(detail, now_s, grace_s) and (is_left_over or (is_ours and not needed.is_needed(path))):
            found.append(path)
    return found
