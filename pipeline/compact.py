"""``corpus compact``: the tables of many units become large parts; not a row changes, nor their order.

Units are grouped in plan order, clips and all layers of a clip set at the same places. A part holds a group's tables of
one kind, each a row group of its own. Parts never change: a group that units joined is written anew, and only the last
group is open to more of them. The work goes in rounds, each published, so that whoever is killed loses one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa

from manifests.compacted import CompactedPart, Compaction, compaction_folder, read_compaction, write_compaction
from manifests.console import ProgressBar, counted, progress, volume
from manifests.corpus import Corpus
from manifests.errors import WorkError
from manifests.ids import digest_bytes, new_attempt_id
from manifests.snapshots import Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot, table_roles
from manifests.store import Store, parse_table
from manifests.tables import TableFile, UnitTables
from pipeline.garbage import GRACE_S, Removed, collect

PART_BYTES = 256 << 20
ROUND_BYTES = 16 << 30
READ_AT_ONCE = 64  # units whose tables are in memory together
Output = tuple[str, str]  # output, fingerprint


@dataclass(frozen=True)
class CompactResult:
    """What a compaction did. ``num_tables`` small tables became ``num_parts`` parts of ``num_bytes``."""

    corpus_uri: str
    snapshot: int
    num_parts: int
    num_tables: int
    num_bytes: int
    removed: Removed

    def lines(self) -> list[str]:
        """The result for people."""
        what = f"{counted(self.num_tables, 'table')} became {counted(self.num_parts, 'part')}, {volume(self.num_bytes)}"
        return [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {what if self.num_parts else 'nothing to compact'}",
            f"{counted(self.removed.num_objects, 'object')} that nothing names removed, {volume(self.removed.num_bytes)}",
        ]


def compact(uri: str, *, part_bytes: int = PART_BYTES, grace_s: float = GRACE_S) -> CompactResult:
    """Compact the newest snapshot and publish the result, then remove what nobody can need any more.

    Safe beside builds, readers and other compactions. What a reader may still have open goes after ``grace_s``.
    Raises WorkError when a table is not what its commit says.
    """
    store, parts = Store(uri), list[CompactedPart]()
    with progress() as bars:
        bar: ProgressBar | None = None
        while True:
            made = _next_round(uri, part_bytes)
            bar = bar or bars.task("compact", made.num_pending, "tables")
            if not made.run(bar.advance):
                break
            if made.publish():
                parts += made.parts
    removed = collect(store, grace_s)
    num_tables, num_bytes = sum(len(part.units) for part in parts), sum(part.num_bytes for part in parts)
    return CompactResult(uri, latest_snapshot_number(store), len(parts), num_tables, num_bytes, removed)


def publish_compacted(store: Store, base: Snapshot, compacted: dict[str, dict[str, str]]) -> Snapshot | None:
    """The newest snapshot with another ``compacted``, published; None when ``base``, which it was made from, holds no more.

    Builds may publish units meanwhile: they stay as they are.
    """
    while True:
        number = latest_snapshot_number(store)
        try:
            since = [read_snapshot(store, n) for n in range(base.number, number + 1)]
        except FileNotFoundError:
            return None
        if not all(_goes_on(before, after) for before, after in pairwise(since)):
            return None
        made = replace(since[-1], number=number + 1, compacted=compacted)
        if publish_snapshot(store, made):
            return made


def _next_round(uri: str, part_bytes: int) -> _Round:
    """A round over the newest snapshot, whichever that is by the time that what it names was read."""
    while True:
        corpus = Corpus.open(uri)
        try:
            return _Round(corpus, part_bytes)
        except FileNotFoundError as error:
            _check_superseded(corpus, error)


def _check_superseded(corpus: Corpus, error: FileNotFoundError) -> None:
    """Something that the snapshot names is gone: another compaction replaced it, if there is a newer snapshot. Raises WorkError if not."""
    if latest_snapshot_number(corpus.store) == corpus.snapshot.number:
        raise WorkError(f"corpus {corpus.store.uri!r}: {error} is gone; run `stepwell corpus fsck --repair`") from error


def _goes_on(before: Snapshot, after: Snapshot) -> bool:
    """Whether all that counted before counts after, from the same places."""
    done = ((output, mark, units) for output, made in before.outputs.items() for mark, units in made.items())
    keeps = all(set(units) <= set(after.outputs.get(output, {}).get(mark, ())) for output, mark, units in done)
    return keeps and before.compacted == after.compacted


class _Round:
    """New parts over one snapshot, up to ROUND_BYTES of them, and the snapshot that names them."""

    def __init__(self, corpus: Corpus, part_bytes: int) -> None:
        self._corpus, self._store, self._snapshot, self._part_bytes = corpus, corpus.store, corpus.snapshot, part_bytes
        self._tables = UnitTables(corpus.store, corpus.snapshot.compacted)
        done = {
            (output, mark): units for output, made in corpus.snapshot.outputs.items() for mark, units in made.items() if units
        }
        self._done = {key: set(units) for key, units in done.items() if table_roles(key[0])}
        self._before = {key: self._compaction(*key) for key in self._done}
        self._compactions: list[str] = []
        self._sizes: dict[str, int] = {}
        self._made: dict[Output, list[CompactedPart]] = {}

    @property
    def parts(self) -> list[CompactedPart]:
        """What was written."""
        return [part for made in self._made.values() for part in made]

    @property
    def num_pending(self) -> int:
        """Tables that no part holds yet."""
        held = sum(len(part.units) for compaction in self._before.values() for part in compaction.parts)
        return sum(len(units) * len(table_roles(key[0])) for key, units in self._done.items()) - held

    def run(self, advance: Callable[[float], None]) -> bool:
        """Write parts that are missing; False when none is. Whatever ends it, what it wrote goes."""
        try:
            self._run(advance)
        except FileNotFoundError as error:
            self._discard()
            _check_superseded(self._corpus, error)
            return True  # look again
        except BaseException:
            self._discard()
            raise
        return bool(self._made)

    def _run(self, advance: Callable[[float], None]) -> None:
        families: dict[str, list[Output]] = {}
        for key in self._done:
            families.setdefault(_family(key[0]), []).append(key)
        num_bytes = 0
        for outputs in families.values():
            for group, units in self._groups(outputs):
                for key, role in [(output, role) for output in outputs for role in table_roles(output[0])]:
                    part = self._part(key, role, group, [unit for unit in units if unit in self._done[key]])
                    if part is not None:
                        advance(len(part.units))
                        num_bytes += part.num_bytes
                if num_bytes >= ROUND_BYTES:
                    return

    def _groups(self, outputs: Sequence[Output]) -> Iterator[tuple[str, list[str]]]:
        """Groups as they were cut before, the last one growing up to the size of a part, and groups of what is in none."""
        done = set[str]().union(*(self._done[key] for key in outputs))
        units = [unit for unit in self._snapshot.units if unit in done]
        ends: dict[str, str] = {}
        for part in (part for key in outputs for part in self._before[key].parts if part.units):
            ends[part.group] = max(part.units[-1], ends.get(part.group, ""))
        return cut_groups(units, ends, lambda unit: self._num_bytes(outputs, units, unit), self._part_bytes)

    def _num_bytes(self, outputs: Iterable[Output], units: Sequence[str], unit: str) -> int:
        """Size of the unit's largest table among the outputs, as it was committed: groups do not depend on what ran before."""
        if unit not in self._sizes:
            at = bisect_left(units, unit)
            some = [(*key, other) for key in outputs for other in units[at : at + READ_AT_ONCE] if other in self._done[key]]
            self._tables.load(some)
            self._sizes = {}
            for output, mark, other in some:
                facts = self._tables.commit(output, mark, other).objects
                largest = max(facts[role].num_bytes for role in table_roles(output))
                self._sizes[other] = max(largest, self._sizes.get(other, 0))
        return self._sizes[unit]

    def _part(self, key: Output, role: str, group: str, units: list[str]) -> CompactedPart | None:
        """Write the part of these units; None where it is there already, or would hold one table alone."""
        there = self._before[key].part_of(role, group)
        if len(units) < 2 or (there is not None and (there.group, there.units) == (group, units)):
            return None
        file: TableFile | None = None
        row_groups, num_rows = [], []
        for table in self._read(key, role, units):
            file = file or TableFile(table.schema)
            row_groups.append(file.append(table))
            num_rows.append(table.num_rows)
        assert file is not None
        fact = file.put(self._store, f"{compaction_folder(*key)}/{role}-{group}-{new_attempt_id()}.parquet")
        part = CompactedPart(role, group, fact.path, fact.num_bytes, fact.digest, units, row_groups, num_rows)
        self._made.setdefault(key, []).append(part)
        return part

    def _read(self, key: Output, role: str, units: Sequence[str]) -> Iterator[pa.Table]:
        """Their tables in order: from the part that holds one, or from its object, whose digest must be that of the commit."""
        for start in range(0, len(units), READ_AT_ONCE):
            some = units[start : start + READ_AT_ONCE]
            alone = [unit for unit in some if not self._before[key].find(role, unit)]
            self._tables.load((*key, unit) for unit in alone)
            facts = {unit: self._tables.commit(*key, unit).objects[role] for unit in alone}
            found = dict(self._store.read_all([fact.path for fact in facts.values()]))
            for unit in some:
                if unit not in facts:
                    yield self._tables.read(*key, unit, role)
                    continue
                path = facts[unit].path
                if path not in found:
                    raise FileNotFoundError(path)
                if digest_bytes(found[path]).hex() != facts[unit].digest:
                    raise WorkError(f"{path!r} is not what its commit says; run `stepwell corpus fsck --repair`, then compact")
                yield parse_table(found[path])

    def publish(self) -> bool:
        """Name the parts in a new snapshot. False, and they are gone, when what they were made from holds no more."""
        if not self._made:
            return False
        compacted = {output: dict(made) for output, made in self._snapshot.compacted.items()}
        for key, made in self._made.items():
            renewed = {(part.role, part.group) for part in made}
            kept = [part for part in self._before[key].parts if (part.role, part.group) not in renewed]
            self._compactions.append(write_compaction(self._store, Compaction(*key, [*kept, *made])))
            compacted.setdefault(key[0], {})[key[1]] = self._compactions[-1]
        published = publish_compacted(self._store, self._snapshot, compacted) is not None
        if not published:
            self._discard()
        return published

    def _discard(self) -> None:
        for path in (*self._compactions, *(part.path for part in self.parts)):
            self._store.remove(path)
        self._compactions, self._made = [], {}

    def _compaction(self, output: str, mark: str) -> Compaction:
        path = self._snapshot.compacted.get(output, {}).get(mark)
        return Compaction(output, mark, []) if path is None else read_compaction(self._store, path)


def cut_groups(
    units: Sequence[str], ends: Mapping[str, str], num_bytes: Callable[[str], int], part_bytes: int
) -> Iterator[tuple[str, list[str]]]:
    """(name, units) of the groups of ``units``, which are in order.

    ``ends`` maps the groups that were cut before, named by their first units, to their last. All but the last of these are
    closed: they keep what lies in them. Elsewhere a group ends where the next unit would pass ``part_bytes``.
    """
    names = sorted(name for name in ends if units and name <= units[-1])
    name, group, held, place = "", list[str](), 0, (-1, False)
    for unit in units:
        now = bisect_right(names, unit)
        is_closed = 0 < now < len(names) and unit <= ends[names[now - 1]]
        size = 0 if is_closed else num_bytes(unit)
        if place != (now, is_closed) or (group and held + size > part_bytes):
            if group:
                yield name, group
            name, group, held = (names[now - 1] if now and now != place[0] else unit), [], 0
        group.append(unit)
        held, place = held + size, (now, is_closed)
    if group:
        yield name, group


def _family(output: str) -> str:
    """Outputs of one family are cut at the same units: layers where their clips are."""
    kind, _, rest = output.partition("/")
    return f"clips/{rest.rsplit('/', 1)[0]}" if kind == "layers" else output
