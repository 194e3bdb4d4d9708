"""``manifest takedown --rewrite``: what has tombstones leaves the store, for good and at once.

A unit that holds some of it becomes another unit, of the inputs that stay (``pipeline.rights.unit_rewriting``): commits
never change, and a snapshot shows the old units or the new ones, never some of both. In order:

1. the new units are committed beside the old ones,
2. the plans name them,
3. parts and decision tables are written without the old ones, and a snapshot names all that,
4. the commits of the old units go, then every object that nothing names any more, without a grace.

Whoever is killed runs it again: each step finds from what lies there what is still to do. Nobody may build meanwhile, and
whoever reads an earlier snapshot finds its objects gone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from manifests.commits import commit_path, list_commits, split_commit_path
from manifests.compacted import CompactedPart, Compaction, compaction_folder, read_compaction, write_compaction
from manifests.console import counted, progress, volume
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.ids import digest_json, new_attempt_id
from manifests.schema import OF_WHOLE
from manifests.snapshots import Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store
from manifests.tables import TableFile, UnitTables, open_part
from manifests.tombstones import TABLE
from pipeline.garbage import collect
from pipeline.heartbeat import others
from pipeline.inputs import Input
from pipeline.publish import assemble, discard
from pipeline.rights.decision_rewriting import rewrite_head
from pipeline.rights.unit_rewriting import Output, UnitRewriting, committed_inputs, discard_commit
from pipeline.units import PLANS, Unit, make_unit, parse_plan, plan_bytes


@dataclass(frozen=True)
class Rewritten:
    """What a rewrite did."""

    snapshot: int
    num_units: int  # written anew now; an earlier attempt may have done some
    num_objects: int  # removed
    num_bytes: int
    tables: list[str]  # decision tables that lost rows

    def lines(self) -> list[str]:
        """For people."""
        removed = f"{counted(self.num_objects, 'object')} removed, {volume(self.num_bytes)}"
        lines = [
            f"rewritten: {counted(self.num_units, 'unit')} written anew, {removed}; snapshot {self.snapshot}",
            "  nothing was kept back: whoever read an earlier snapshot opens the newest now",
        ]
        if self.tables:
            lines.append(
                f"  {', '.join(self.tables)} lost rows: what a table sums and compares is of the day it was made; make it again"
            )
        return lines


def rewrite(uri: str) -> Rewritten:
    """Take all that has tombstones off the store. Run again after an interruption, it goes on.

    Raises RequestError while a build is at work, WorkError where a unit is damaged or in no plan.
    """
    store = Store(uri)
    for other in others(store):
        raise RequestError(f"run {other.run_id} on {other.host} pid {other.pid} is at work in {uri!r}; rewrite when it has ended")
    corpus = Corpus.open(uri)
    run = _Rewriting(store, corpus)
    num_units = run.write_units()
    run.replace_plans()
    number = _publish(store, run)
    run.remove_old(number)
    removed, tables = collect(store, 0.0), read_snapshot(store, number).tables
    changed = sorted(name for name, path in corpus.snapshot.tables.items() if tables.get(name) != path)
    return Rewritten(number, num_units, removed.num_objects, removed.num_bytes, changed)


class _Rewriting:
    """What becomes of each planned unit under the tombstones of the newest snapshot."""

    def __init__(self, store: Store, corpus: Corpus) -> None:
        self._store, self.tombstones = store, corpus.tombstones
        self._tables = UnitTables(store, corpus.snapshot.compacted)
        self._outputs: dict[str, list[Output]] = {}
        for key, units in list_commits(store).items():
            for unit in units:
                self._outputs.setdefault(unit, []).append(key)
        snapshot = corpus.snapshot
        hidden = {*snapshot.taken_recordings, *snapshot.taken_inputs, *snapshot.cut_recordings}
        self._untouched = set(snapshot.units) - hidden
        self._plans = {path: list(parse_plan(data)) for path, data in store.read_all(store.objects(PLANS))}
        self._left = {unit.unit_id: self._without(unit) for units in self._plans.values() for unit in units}
        self.planned = {unit.unit_id for unit in self._left.values()}
        numbers = {_number(unit) for unit in self._left}
        for unit in sorted(hidden):
            if _number(unit) not in numbers:
                raise WorkError(f"unit {unit} holds what was taken down and is in no plan; run `stepwell corpus fsck --repair`")

    def _without(self, unit: Unit) -> Unit:
        """The unit of what stays: itself, where nothing of it was taken down."""
        recordings: dict[bytes, set[bytes]] = {}  # input -> what its bytes became
        outputs = () if unit.unit_id in self._untouched else self._outputs.get(unit.unit_id, ())
        for rows in committed_inputs(self._tables, outputs, unit.unit_id):
            for row in rows.to_pylist():
                if row["recording_id"] is not None:
                    recordings.setdefault(row["input_id"], set()).add(row["recording_id"])
        kept = [
            item
            for item in unit.inputs
            if not self.tombstones.refuses(item.input_id, item.uri, item.source, item.facts.get("speaker_label"))
            and not recordings.get(item.input_id, set()) & self.tombstones.recordings
        ]
        kept = [_unsaid(item) if recordings.get(item.input_id, set()) & self.tombstones.cuts.keys() else item for item in kept]
        held = {recording for item in kept for recording in recordings.get(item.input_id, ())}
        cuts = {recording.hex(): self.tombstones.cuts[recording] for recording in held & self.tombstones.cuts.keys()}
        if not recordings and unit.cuts:  # not committed: nobody knows, and nothing is cut before it is
            return make_unit(int(_number(unit.unit_id)), kept, unit.cuts)
        return make_unit(int(_number(unit.unit_id)), kept, digest_json(cuts)[:16] if cuts else "")

    def write_units(self) -> int:
        """Commit the units that change under their new names; their number."""
        todo = {old: new for old, new in self._left.items() if new.unit_id != old}
        with progress() as bars:
            bar = bars.task("takedown: rewrite", len(todo), "units")
            for old, new in todo.items():
                # What an earlier attempt left: it may have known fewer tombstones.
                for key in self._outputs.get(new.unit_id, ()):
                    discard_commit(self._store, *key, new.unit_id)
                UnitRewriting(self._store, self._tables, self.tombstones, old, new).run(self._outputs.get(old, ()))
                bar.advance()
        return len(todo)

    def replace_plans(self) -> None:
        """The plans with the new units in the place of the old ones."""
        for path, units in self._plans.items():
            left = [self._left[unit.unit_id] for unit in units]
            if left != units:
                self._store.replace(path, plan_bytes(left))

    def successors(self, snapshot: Snapshot) -> dict[str, str]:
        """Unit that the snapshot has and no plan any more -> the one that stands for it."""
        by_number = {_number(unit): unit for unit in self.planned}
        old = [unit for unit in snapshot.units if unit not in self.planned and _number(unit) in by_number]
        return {unit: by_number[_number(unit)] for unit in old}

    def remove_old(self, number: int) -> None:
        """Remove the commits and checkpoints of units that no plan and no snapshot has: what they name is garbage then."""
        kept = self.planned | set(read_snapshot(self._store, number).units)
        for (output, mark), units in list_commits(self._store).items():
            for unit in units:
                if unit not in kept:
                    self._store.remove(commit_path(output, mark, unit))
        for path in self._store.objects("checkpoints"):
            _, _, unit = split_commit_path("commits/" + path.removeprefix("checkpoints/").rsplit("/", 1)[0])
            if unit not in kept:
                self._store.remove(path)


def _unsaid(item: Input) -> Input:
    """The input without what holds of the whole of it; it stays the same input."""
    return replace(item, facts={name: value for name, value in item.facts.items() if name not in OF_WHOLE})


def _number(unit: str) -> str:
    return unit.partition("-")[0]


def _publish(store: Store, run: _Rewriting) -> int:
    """The newest snapshot with the new units in the place of the old ones; its number. The newest as it is, where none is old."""
    while True:
        before = read_snapshot(store, latest_snapshot_number(store))
        successors = run.successors(before)
        if not successors:
            return before.number
        units = [successors.get(unit, unit) for unit in before.units]
        compacted = _without_parts(store, before, successors.keys())
        tables = {
            name: path if name == TABLE else rewrite_head(store, path, successors, run.tombstones)
            for name, path in before.tables.items()
        }
        made = assemble(store, before.number + 1, None, units, before.current, before.clip_set, compacted, tables)
        if publish_snapshot(store, made):
            return made.number
        discard(store, made, before)  # what else was written serves nothing, and is collected


def _without_parts(store: Store, before: Snapshot, gone: Collection[str]) -> dict[str, dict[str, str]]:
    """The snapshot's ``compacted``; parts that hold rows of units that are gone are written again without them."""
    places: dict[str, dict[str, str]] = {}
    for output, made in before.compacted.items():
        for mark, path in made.items():
            compaction = read_compaction(store, path)
            parts = [_without_units(store, compaction, part, gone) for part in compaction.parts]
            kept = [part for part in parts if part is not None]
            is_same = kept == compaction.parts
            if kept:
                places.setdefault(output, {})[mark] = path if is_same else write_compaction(store, Compaction(output, mark, kept))
    return places


def _without_units(store: Store, compaction: Compaction, part: CompactedPart, gone: Collection[str]) -> CompactedPart | None:
    if not set(part.units) & set(gone):
        return part
    left = part.without(gone)
    if not left.units:
        return None
    with open_part(store, part.path) as source:
        file = TableFile(source.schema_arrow)
        row_groups = [file.append(source.read_row_group(number, use_threads=False)) for number in left.row_groups]
    folder = compaction_folder(compaction.output, compaction.fingerprint)
    fact = file.put(store, f"{folder}/{part.role}-{part.group}-{new_attempt_id()}.parquet")
    return replace(left, path=fact.path, num_bytes=fact.num_bytes, digest=fact.digest, row_groups=row_groups)
