"""``corpus fsck --repair``: rebuild indexes, mend plans, take back what cannot be trusted, publish what is left.

What is broken is done again by the next build, and nothing else: its commits go, and those that read it; the objects
become orphans. Nothing is invented: what is not in the corpus any more comes from its source again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from manifests.commits import Commit, commit_path, list_commits, parse_commit
from manifests.compacted import Compaction, read_compaction, write_compaction
from manifests.console import counted
from manifests.decision_tables import FOLDER as DECISIONS
from manifests.errors import WorkError
from manifests.snapshots import Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot, snapshot_number
from manifests.store import Store
from manifests.tombstones import TABLE as TAKEDOWNS
from pipeline.faults import DECIDE, PUBLISH, RESTATE, Key
from pipeline.fsck import Findings
from pipeline.garbage import Removed, collect
from pipeline.publish import assemble, discard

IN_PARTS = ("compaction_unreadable", "part_missing", "part_size", "part_digest", "part_rows")
BY_HAND = ("head_unreadable", "unit_unplanned")


@dataclass(frozen=True)
class Repaired:
    """What a repair did. ``scheduled`` are the commits that were taken back: the next build makes them again."""

    num_mended: int
    num_to_restate: int  # facts of parts that were removed: the next build writes them anew
    scheduled: list[Key]
    snapshot: int
    removed: Removed
    num_left: int  # faults that need a person

    def lines(self) -> list[str]:
        """The repair for people."""
        mended = f"{counted(self.num_mended, 'object')} mended"
        lines = [f"{mended}, {self.removed.num_objects:,} removed; the newest snapshot is {self.snapshot}"]
        if self.num_to_restate:
            lines.append(f"what made {counted(self.num_to_restate, 'output')} is to be written anew: run the build again")
        if not self.scheduled:
            return [*lines, "nothing is to be done again"]
        units = len({unit for _, _, unit in self.scheduled})
        what = f"{counted(len(self.scheduled), 'output')} of {counted(units, 'unit')}"
        return [*lines, f"to be done again, {what}: run the build again"]


def repair(found: Findings, grace_s: float) -> Repaired:
    """Mend what was found. Run again after an interruption, it goes on.

    Raises WorkError, with nothing changed, where tombstones are damaged: without them what was taken down would be seen again.
    """
    store = Store(found.corpus_uri)
    if lost := sorted(path for path in found.places.bad_tables if path.startswith(f"{DECISIONS}/{TAKEDOWNS}/")):
        raise WorkError(
            f"{lost[0]!r} says what was taken down, and is damaged; put it back from a backup before anything is repaired"
        )
    for path, data in found.mended.items():
        store.replace(path, data)
    to_restate = [fault.path for fault in found.faults if fault.remedy == RESTATE]
    for path in to_restate:
        store.remove(path)
    broken = {key for fault in found.faults for key in fault.breaks} | found.lost
    scheduled = _with_readers(store, broken)
    for key in scheduled:
        store.remove(commit_path(*key))
    if scheduled or any(fault.remedy in (PUBLISH, DECIDE) or fault.code in IN_PARTS for fault in found.faults):
        _republish(store, found, set(scheduled))
    removed = collect(store, grace_s)
    num_left = sum(fault.code in BY_HAND and not fault.breaks for fault in found.faults)
    return Repaired(len(found.mended), len(to_restate), scheduled, latest_snapshot_number(store), removed, num_left)


def _with_readers(store: Store, broken: set[Key]) -> list[Key]:
    """The commits and all that read them, the readers first: whoever is interrupted finds the cause again."""
    units = {unit for _, _, unit in broken}
    keys = [(output, mark, unit) for (output, mark), done in list_commits(store).items() for unit in done if unit in units]
    commits: list[Commit] = []
    for _, data in store.read_all([commit_path(*key) for key in keys if key not in broken]):
        commits.append(parse_commit(data))
    ordered, added = sorted(broken & set(keys)), set(broken)
    while True:
        readers = [c for c in commits if any((output, mark, c.unit) in added for output, mark in c.reads.items())]
        new = {(c.output, c.fingerprint, c.unit) for c in readers} - added
        if not new:
            return ordered
        ordered, added = [*sorted(new), *ordered], added | new


def _republish(store: Store, found: Findings, gone: Collection[Key]) -> None:
    """Publish what is committed and in order; snapshots before it, which name what is gone, go."""
    while True:
        before = _newest(store, found)
        if before is None:
            return  # nothing was published yet: the build will
        number, committed = latest_snapshot_number(store) + 1, list_commits(store)
        left = {unit for done in committed.values() for unit in done}
        units = [unit for unit in before.units if unit in left]
        compacted = _without(store, found, before, gone, committed)
        # From nothing: what the snapshot before says of owners may be what is wrong.
        tables = {name: path for name, path in before.tables.items() if path not in found.places.bad_tables}
        made = assemble(store, number, None, units, before.current, before.clip_set, compacted, tables)
        if publish_snapshot(store, made):
            break
        discard(store, made, before)
    for path in store.objects("snapshots"):
        if 0 <= snapshot_number(path) < number:
            store.remove(path)


def _newest(store: Store, found: Findings) -> Snapshot | None:
    """What a run has published since the check, else what the check has for the newest snapshot."""
    number = latest_snapshot_number(store)
    return read_snapshot(store, number) if number > found.last_snapshot else found.newest


def _without(
    store: Store, found: Findings, before: Snapshot, gone: Iterable[Key], committed: Mapping[tuple[str, str], Iterable[str]]
) -> dict[str, dict[str, str]]:
    """The snapshot's ``compacted`` without damaged parts, what was taken back, and what an earlier repair took back."""
    taken: dict[tuple[str, str], set[str]] = {}
    for output, mark, unit in gone:
        taken.setdefault((output, mark), set()).add(unit)
    compacted: dict[str, dict[str, str]] = {}
    for key, path in (((output, mark), path) for output, made in before.compacted.items() for mark, path in made.items()):
        if key in found.places.bad_compactions:
            continue
        compaction, left = read_compaction(store, path), set(committed.get(key, ())) - taken.get(key, set())
        well = [part for part in compaction.parts if part.path not in found.places.bad_parts]
        parts = [part.without(set(part.units) - left) for part in well]
        kept = [part for part in parts if part.units]
        if kept:
            same = kept == compaction.parts
            compacted.setdefault(key[0], {})[key[1]] = path if same else write_compaction(store, Compaction(*key, kept))
    return compacted
