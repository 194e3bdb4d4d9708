"""``corpus fsck``: every checksum, schema, index and cross-reference of a corpus, each fault by its name.

One listing first; what comes after it is not looked at, so that a build may work meanwhile. Then the plans, what made the
outputs, the snapshots with their compactions, unit by unit everything that is committed, who owns what, and last the objects
that nothing names.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from manifests.commits import commit_path, split_commit_path
from manifests.console import counted, hours, progress, volume
from manifests.decision_tables import FOLDER as DECISIONS
from manifests.errors import RequestError
from manifests.parts import FOLDER as PARTS
from manifests.parts import parse_part_facts
from manifests.snapshots import FORMAT_VERSION, INGEST, Snapshot
from manifests.store import Store
from manifests.tables import UnitTables
from manifests.tombstones import NAMED, Hidden, Tombstones
from manifests.tombstones import TABLE as TAKEDOWNS
from pipeline.faults import Fault, Key, said
from pipeline.garbage import GRACE_S, Needed, SnapshotView, garbage
from pipeline.holdings import HOLDINGS, Ownership, holding, read_holdings, settle
from pipeline.snapshot_check import Output, Places, SnapshotCheck
from pipeline.unit_check import UnitCheck
from pipeline.units import PLANS, Unit, make_unit, parse_plan, plan_bytes

SHOWN = 20  # lines a code, for people


@dataclass
class Findings:
    """What a check found, and what a repair needs to know."""

    corpus_uri: str
    faults: list[Fault] = field(default_factory=list)
    num_units: int = 0
    num_commits: int = 0
    num_objects: int = 0
    num_bytes: int = 0
    audio_s: float = 0.0
    wall_s: float = 0.0
    last_snapshot: int = -1  # number of the newest that was there, readable or not
    newest: Snapshot | None = None  # that can be read, or what stands for it
    places: Places = field(default_factory=Places)
    lost: set[Key] = field(default_factory=set)  # commits whose tables were in parts that are damaged, and nowhere else
    mended: dict[str, bytes] = field(default_factory=dict)  # index or plan -> its right bytes

    def to_json(self) -> dict[str, Any]:
        names = ("corpus_uri", "num_units", "num_commits", "num_objects", "num_bytes", "audio_s", "wall_s")
        faults = [{**asdict(fault), "remedy": fault.remedy} for fault in self.faults]
        return {**{name: getattr(self, name) for name in names}, "num_faults": len(faults), "faults": faults}

    def lines(self) -> list[str]:
        """The findings for people."""
        speed = self.audio_s / 3600 / max(self.wall_s, 1e-9)
        counts_of = (("unit", self.num_units), ("commit", self.num_commits), ("object", self.num_objects))
        what = ", ".join([*(counted(num, noun) for noun, num in counts_of), volume(self.num_bytes)])
        lines = [f"corpus {self.corpus_uri}: {what}"]
        lines += [f"{hours(self.audio_s / 3600)} checked in {self.wall_s:.1f} s, {speed:.3g} audio-hours a second"]
        counts: Counter[str] = Counter()
        for fault in self.faults:
            counts[fault.code] += 1
            lines += [fault.line()] if counts[fault.code] <= SHOWN else []
        lines += [f"{code}: {number - SHOWN} more, all in --json" for code, number in counts.items() if number > SHOWN]
        summary = ", ".join(f"{number} {code}" for code, number in counts.most_common())
        return [*lines, f"{counted(len(self.faults), 'fault')}: {summary}" if self.faults else "no faults"]


def check(uri: str, *, fast: bool = False, grace_s: float = GRACE_S) -> Findings:
    """Everything that is wrong with a corpus. ``fast`` leaves out digests of audio and of compacted parts.

    Objects that nothing names count as faults when they are older than ``grace_s``: younger ones may belong to work that
    goes on. Raises RequestError where there is no corpus at all.
    """
    began_s = time.time()
    inspection = _Inspection(Store(uri), fast)
    inspection.run(began_s, grace_s)
    inspection.found.wall_s = time.time() - began_s
    return inspection.found


class _Inspection:
    """One check of one corpus; every step adds to ``found``."""

    def __init__(self, store: Store, fast: bool) -> None:
        self._store, self._fast = store, fast
        self.found = Findings(store.uri)
        self._details = store.details()
        self._planned: dict[str, Unit] = {}
        self._all_planned = True  # every plan can be read
        self._snapshots = SnapshotCheck(store, self._details, fast)
        self._held: dict[str, dict[str, pa.Table]] = {}  # ingest fingerprint -> unit -> holdings
        self._missed: set[bytes] = set()  # inputs that a takedown names and that have no tombstone

    def run(self, now_s: float, grace_s: float) -> None:
        outputs = self._committed()
        if "corpus.json" not in self._details and not outputs:
            raise RequestError(f"no corpus at {self._store.uri!r} (no corpus.json); give the URI of one")
        self.found.num_objects, self.found.num_bytes = len(self._details), sum(d.num_bytes for d in self._details.values())
        self.found.num_units, self.found.num_commits = len(outputs), sum(map(len, outputs.values()))
        self._check_head()
        self._check_plans()
        self._check_facts()
        self._snapshots.run()
        self.found.faults += self._snapshots.faults
        self.found.newest, self.found.places = self._snapshots.newest, self._snapshots.places
        self.found.last_snapshot = self._snapshots.last_number
        needed, unsure = self._check_units(outputs)
        self._check_owners()
        self._check_garbage(garbage(self._details, needed, now_s, grace_s), unsure)

    def _committed(self) -> dict[str, set[Output]]:
        found: dict[str, set[Output]] = {}
        for path in self._details:
            if path.startswith("commits/") and path.endswith(".json"):
                output, mark, unit = split_commit_path(path)
                found.setdefault(unit, set()).add((output, mark))
        return found

    @cached_property
    def _tombstones(self) -> Tombstones:
        """Of the newest snapshot; none where they cannot be read, which is told elsewhere."""
        newest = self.found.newest
        is_bad = newest is None or newest.tables.get(TAKEDOWNS) in self.found.places.bad_tables
        return Tombstones.of(self._store, None if is_bad else newest)

    def _check_head(self) -> None:
        try:
            version = json.loads(self._store.read("corpus.json"))["format_version"]
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            return self._fault("head_unreadable", "corpus.json", f"not the head of a corpus ({said(error)})")
        if version != FORMAT_VERSION:
            raise RequestError(f"corpus {self._store.uri!r} has format {version!r}; this version reads {FORMAT_VERSION}")
        return None

    def _check_plans(self) -> None:
        # Listed again: the plan of a unit that came while the first listing went on may not be in that.
        for path, data in self._store.read_all(self._store.objects(PLANS)):
            try:
                units = list(parse_plan(data))
            except (ValueError, KeyError, TypeError) as error:
                self._fault("plan_unreadable", path, f"not a plan ({said(error)})")
                self._all_planned, self.found.mended[path] = False, plan_bytes([])
                continue
            well = []
            for unit in units:
                if unit != make_unit(int(unit.unit_id.split("-")[0]), unit.inputs, unit.cuts):
                    self._fault("plan_wrong", path, f"unit {unit.unit_id} does not have the digest of its inputs")
                    self._all_planned = False
                elif unit.unit_id in self._planned:
                    self._fault("unit_twice", path, f"unit {unit.unit_id} is in an earlier plan already")
                else:
                    self._planned[unit.unit_id] = unit
                    well.append(unit)
            if well != units:
                self.found.mended[path] = plan_bytes(well)

    def _check_facts(self) -> None:
        """What made the outputs can be read. Where nothing says it, an earlier version made them: no fault."""
        for path, data in self._store.read_all([path for path in self._details if path.startswith(f"{PARTS}/")]):
            try:
                parse_part_facts(data)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._fault("facts_unreadable", path, f"it does not say what made the output ({said(error)})")

    def _check_units(self, outputs: dict[str, set[Output]]) -> tuple[Needed, set[str]]:
        """(what commits and snapshots name, units of which a commit cannot be read: nobody knows what they name)."""
        views = [SnapshotView(self._store, snapshot) for snapshot in self._snapshots.snapshots]
        needed, unsure = Needed(views), set[str]()
        reader = UnitTables(self._store, self.found.newest.compacted if self.found.newest else {})
        with progress() as bars:
            bar = bars.task("fsck: units", len(outputs), "units")
            for unit in sorted(outputs):
                planned = self._planned.get(unit)
                ids = None if planned is None else {item.input_id for item in planned.inputs}
                check = UnitCheck(self._store, unit, self._details, self.found.places, self._fast)
                check.run(outputs[unit], ids, reader)
                for commit in check.commits.values():
                    needed.add(commit, replaced=True)
                if check.commits.keys() != outputs[unit]:
                    unsure.add(unit)
                self._take(check)
                if planned is None and self._all_planned:
                    self.found.faults.append(self._unknown(unit, outputs[unit], check))
                bar.advance(note=f"{self.found.audio_s / 3600:.2f} h, {counted(len(self.found.faults), 'fault')}")
        return needed, unsure

    def _take(self, check: UnitCheck) -> None:
        self.found.faults += check.faults
        self.found.mended |= check.rebuilt
        self.found.audio_s += check.audio_s
        self.found.lost |= {(*key, check.unit) for key in check.lost}
        for mark, inputs in check.inputs.items():
            self._held.setdefault(mark, {})[check.unit] = holding(check.unit, inputs.select(["input_id", "recording_id"]))
            newest = self.found.newest
            if newest is not None and check.unit in newest.units and mark == newest.current.get(INGEST):
                self._missed |= {row["input_id"] for _, row in self._tombstones.missed(inputs.select(NAMED))}

    def _unknown(self, unit: str, outputs: set[Output], check: UnitCheck) -> Fault:
        """A unit that no plan has. Where a snapshot has it, a plan was lost: it stays until other units took its inputs."""
        keys = tuple((output, mark, unit) for output, mark in sorted(outputs))
        newest = self.found.newest
        if newest is None or unit not in newest.units:
            return Fault("commit_unknown_unit", commit_path(*keys[0]), f"unit {unit} is in no plan and no snapshot", keys)
        inputs = check.inputs.get(newest.current.get(INGEST, ""))
        is_replaced = inputs is not None and {i.hex() for i in inputs["input_id"].to_pylist()} <= {
            *newest.superseded.get(unit, ())
        }
        what = f"unit {unit} is in a snapshot and in no plan; its inputs {'were' if is_replaced else 'were not'} taken again"
        return Fault("unit_unplanned", commit_path(*keys[0]), what, keys if is_replaced else ())

    def _check_owners(self) -> None:
        """What the newest snapshot shadows and supersedes is what its inputs say, and so are its holdings."""
        newest = self.found.newest
        if newest is None or self._snapshots.is_newest_lost:
            return
        mark = newest.current.get(INGEST, "")
        units, held = newest.outputs.get(INGEST, {}).get(mark, []), self._held.get(mark, {})
        if any(unit not in held for unit in units):
            return  # told already: some inputs cannot be read
        rows = pa.concat_tables([HOLDINGS.empty_table(), *(held[unit] for unit in units)])
        owners = settle(Ownership(), self._store, [], rows)
        for name in ("shadowed", "superseded"):
            found = {unit: sorted(ids) for unit, ids in getattr(owners, name).items() if ids}
            if found != getattr(newest, name):
                what = f"{name} says {len(getattr(newest, name))} units, or others, of {len(found)} that hold what is counted elsewhere"
                self._fault("snapshot_owners", Snapshot.path(newest.number), what)
        if newest.tables.get(TAKEDOWNS) not in self.found.places.bad_tables:
            if self._tombstones.hidden(rows) != Hidden.of(newest):
                self._fault(
                    "snapshot_owners", Snapshot.path(newest.number), "it hides other rows than those that have tombstones"
                )
            if self._missed:
                what = f"it shows {counted(len(self._missed), 'input')} of a name that was taken down"
                self._fault("snapshot_owners", Snapshot.path(newest.number), what)
        if not newest.holdings:
            return  # none were kept: the next publication makes them
        try:
            kept, order = read_holdings(self._store, newest.holdings), [(name, "ascending") for name in HOLDINGS.names]
            if kept.sort_by(order) != rows.sort_by(order):
                self._fault(
                    "holdings_wrong",
                    newest.holdings[-1],
                    f"{kept.num_rows} rows; the inputs of the corpus make {rows.num_rows}, or others",
                )
        except (FileNotFoundError, pa.ArrowException, OSError) as error:
            self._fault("holdings_wrong", newest.holdings[-1], f"they cannot be read ({said(error)})")

    def _check_garbage(self, paths: list[str], unsure: set[str]) -> None:
        """What nothing names, but for what might be named by something that cannot be read."""
        places = [f"compacted/{output}/{mark}/" for output, mark in self._snapshots.unreadable]
        places += [f"{DECISIONS}/{name}/" for name in self._snapshots.unreadable_tables]
        places += ["compacted/", "holdings/", f"{DECISIONS}/"] if self._snapshots.is_newest_lost else []
        for path in paths:
            name = path.rsplit("/", 1)[-1]
            if path.startswith(("snapshots/", *places)) or any(name.startswith(f"{unit}-") for unit in unsure):
                continue
            is_draft = path.endswith(".draft") or path.startswith(".probe-")
            code = "draft" if is_draft else "checkpoint" if path.startswith("checkpoints/") else "orphan"
            self._fault(code, path, "neither a commit nor a snapshot names it")

    def _fault(self, code: str, path: str, what: str) -> None:
        self.found.faults.append(Fault(code, path, what))
