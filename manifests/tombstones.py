"""Tombstones: what was taken out of a corpus for good, as the decision table ``takedowns`` has it.

Roles: ``rules`` (TAKEDOWNS) and ``tombstones`` (TOMBSTONES), both of the whole corpus; a table holds all rows of its parents.
A snapshot says which recordings and inputs of which units they hide (``Snapshot.taken_recordings``, …), so that a reader of
a unit that holds none pays nothing. They keep ids and digests: what is known by them is refused when it comes again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from manifests.decision_tables import read_decision_table
from manifests.ids import digest_bytes
from manifests.schema import ID, OF_WHOLE, TAKEDOWNS, TOMBSTONES, table_of
from manifests.snapshots import Snapshot
from manifests.store import Store
from manifests.tables import open_part

TABLE = "takedowns"
# Columns that say whose a row of a decision table is -> kind of tombstone; a person has rows in tables of the whole corpus.
KEYS = {"clip_id": "clip", "recording_id": "recording", "input_id": "input"}
WHOLE_KEYS = {**KEYS, "speaker_id": "speaker", "alias": "speaker"}

NAMED = ("input_id", "uri", "source", "speaker_label")  # columns of INPUTS by which rules know them


class Cut(NamedTuple):
    """A span of a channel that was taken out; samples count at the recording's stored rate, from its start."""

    channel: int
    start_sample: int
    end_sample: int

    def is_in(self, channel: int, heard_channels: Sequence[int]) -> bool:
        """Whether a channel lacks the span: its own does, and so do those that no model hears (copies of one, as a rule)."""
        return channel == self.channel or channel not in heard_channels

    def overlaps(self, channel: int, start_sample: int, end_sample: int) -> bool:
        return channel == self.channel and start_sample < self.end_sample and self.start_sample < end_sample


def name_digest(text: str) -> bytes:
    """How a name, an address or a text is kept: by its digest alone."""
    return digest_bytes(text.strip().encode())


@dataclass(frozen=True)
class Tombstones:
    """All tombstones of a snapshot."""

    rules: pa.Table  # TAKEDOWNS
    rows: pa.Table  # TOMBSTONES

    @staticmethod
    def of(store: Store, snapshot: Snapshot | None) -> Tombstones:
        """Those of a snapshot; none where nothing was ever taken down."""
        return Tombstones.at(store, None if snapshot is None else snapshot.tables.get(TABLE))

    @staticmethod
    def at(store: Store, path: str | None) -> Tombstones:
        """Those of a head. Read once a process: it never changes."""
        return NONE if path is None else _read(store.uri, path)

    @cached_property
    def recordings(self) -> frozenset[bytes]:
        """Recordings that are gone as a whole."""
        return self.ids("recording")

    @cached_property
    def inputs(self) -> frozenset[bytes]:
        return self.ids("input")

    @cached_property
    def cuts(self) -> Mapping[bytes, tuple[Cut, ...]]:
        """Recording -> its spans that are gone."""
        found: dict[bytes, list[Cut]] = {}
        names = ["recording_id", "channel", "start_sample", "end_sample"]
        # Clips that only touch a span are known by their ids alone.
        is_span = pc.and_(pc.equal(self.rows["kind"], "clip"), pc.is_valid(self.rows["channel"]))
        for row in self.rows.filter(is_span).select(names).to_pylist():
            if row["recording_id"] not in self.recordings:
                found.setdefault(row["recording_id"], []).append(Cut(*(row[name] for name in names[1:])))
        return {recording: tuple(sorted(set(cuts))) for recording, cuts in found.items()}

    def ids(self, kind: str) -> frozenset[bytes]:
        """Ids of the rows of a kind; asked for once a unit, found once."""
        return self._ids.get(kind, frozenset())

    def id_array(self, *kinds: str) -> pa.Array:
        """Ids of the rows of some kinds, each once, in order; made once."""
        if kinds not in self._id_arrays:
            self._id_arrays[kinds] = pa.array(sorted(set[bytes]().union(*map(self.ids, kinds))), ID)
        return self._id_arrays[kinds]

    @cached_property
    def _id_arrays(self) -> dict[tuple[str, ...], pa.Array]:
        return {}

    @cached_property
    def _ids(self) -> Mapping[str, frozenset[bytes]]:
        found: dict[str, set[bytes]] = {}
        for kind, identity in zip(self.rows["kind"].to_pylist(), self.rows["id"].to_pylist(), strict=True):
            found.setdefault(kind, set()).add(identity)
        return {kind: frozenset(ids) for kind, ids in found.items()}

    def refuses(self, identity: bytes, uri: str, source: str, speaker_label: str | None) -> bool:
        """Whether an input may not come in, whatever bytes it has: by its id, or by a rule on names."""
        return identity in self.inputs or bool(self.naming(uri, source, speaker_label))

    def naming(self, uri: str, source: str, speaker_label: str | None) -> list[bytes]:
        """The takedowns whose rule is on a name that an input has. Rules hold for whatever comes later too."""
        return [takedown for takedown, rule in self._name_rules.items() if rule.holds(uri, source, speaker_label)]

    def takedown_of(self, identity: bytes) -> bytes:
        """The first takedown that took an input, a recording or spans of one. Raises IndexError where none did."""
        is_of_it = pc.or_kleene(pc.equal(self.rows["id"], identity), pc.equal(self.rows["recording_id"], identity))
        found: bytes = self.rows["takedown_id"].filter(is_of_it)[0].as_py()
        return found

    def missed(self, inputs: pa.Table) -> list[tuple[bytes, dict[str, Any]]]:
        """(takedown, row) of the INPUTS rows (those of NAMED and more) that a rule on names takes and that have no tombstone."""
        rows = inputs.to_pylist() if self._name_rules else ()
        fresh = (row for row in rows if row["input_id"] not in self.inputs)
        return [(takedown, row) for row in fresh for takedown in self.naming(row["uri"], row["source"], row["speaker_label"])]

    @cached_property
    def _name_rules(self) -> Mapping[bytes, NameRule]:
        rows = self.rules.to_pylist()
        return {row["takedown_id"]: NameRule(row["rule"], row["value"]) for row in rows if row["rule"] in NameRule.RULES}

    def grown(self, rows: Iterable[Mapping[str, Any]]) -> Tombstones:
        """With those of the TOMBSTONES rows that are not there yet."""
        keys = ("takedown_id", "kind", "id", "channel", "start_sample")
        found = list(rows)
        takedowns = pa.array(sorted({row["takedown_id"] for row in found}), ID)
        known = self.rows.filter(pc.is_in(self.rows["takedown_id"], value_set=takedowns))
        seen = {tuple(row[key] for key in keys) for row in known.select(keys).to_pylist()}
        fresh: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for row in found:
            if (key := tuple(row.get(name) for name in keys)) not in seen:
                fresh.setdefault(key, row)
        return replace(self, rows=pa.concat_tables([self.rows, table_of(list(fresh.values()), TOMBSTONES)]))

    def hidden(self, holdings: pa.Table) -> Hidden:
        """What of the rows (unit, input_id, recording_id) readers must not see."""
        found = (dict[str, set[str]](), dict[str, set[str]](), dict[str, set[str]]())
        taken_recordings, taken_inputs, cut_recordings = found
        touched = pa.array([*self.recordings, *self.cuts], ID)
        is_touched = pc.or_(
            pc.is_in(holdings["recording_id"], value_set=touched),
            pc.is_in(holdings["input_id"], value_set=pa.array([*self.inputs], ID)),
        )
        for row in holdings.filter(is_touched).to_pylist():
            unit, recording = row["unit"], row["recording_id"]
            if recording in self.recordings:
                taken_recordings.setdefault(unit, set()).add(recording.hex())
            if recording in self.recordings or row["input_id"] in self.inputs:
                taken_inputs.setdefault(unit, set()).add(row["input_id"].hex())
            if recording in self.cuts:
                cut_recordings.setdefault(unit, set()).add(recording.hex())
        return Hidden(*map(_listed, found))

    def shown(self, clips: pa.Table) -> pa.Array:
        """Bool a row with ``recording_id``, ``channel``, ``start_sample``, ``end_sample``: whether no cut touches it."""
        columns = [clips[name].to_pylist() for name in ("recording_id", "channel", "start_sample", "end_sample")]
        return pa.array(
            [
                not any(cut.overlaps(*span) for cut in self.cuts.get(recording, ()))
                for recording, *span in zip(*columns, strict=True)
            ],
            pa.bool_(),
        )

    def without(self, table: pa.Table, keys: Mapping[str, str]) -> pa.Table:
        """The rows of nothing that was taken down, by whichever of ``keys`` (column -> kind of tombstone) the table has."""
        for name in keys.keys() & {*table.column_names} if self.rows.num_rows else ():
            table = table.filter(pc.invert(pc.is_in(table[name], value_set=self.id_array(keys[name]))))
        return table

    def unsaid(self, inputs: pa.Table) -> pa.Table:
        """INPUTS rows (with ``recording_id``), without what a source says of a recording that is cut (OF_WHOLE).

        The transcript of the whole says the span that is gone, and is the transcript of nothing that is left.
        """
        is_cut = pc.is_in(inputs["recording_id"], value_set=pa.array([*self.cuts], ID))
        for name in {*OF_WHOLE} & {*inputs.column_names}:
            left = pc.if_else(is_cut, pa.scalar(None, pa.string()), inputs[name])
            inputs = inputs.set_column(inputs.column_names.index(name), inputs.schema.field(name), left)
        return inputs

    def outside(self, spans: pa.Table) -> pa.Table:
        """Rows of SPANS without what the cuts took of them: a row may become none, one or several."""
        kept: list[dict[str, Any]] = []
        for row in spans.to_pylist():
            cuts = [cut for cut in self.cuts.get(row["recording_id"], ()) if cut.channel == row["channel"]]
            for start, end in _without(row["start_sample"], row["end_sample"], cuts):
                kept.append({**row, "start_sample": start, "end_sample": end})
        return pa.Table.from_pylist(kept, schema=spans.schema)


class Hidden(NamedTuple):
    """Unit -> ids (hex) in it, in order, as a snapshot has them."""

    taken_recordings: dict[str, list[str]]
    taken_inputs: dict[str, list[str]]
    cut_recordings: dict[str, list[str]]

    @staticmethod
    def of(snapshot: Snapshot) -> Hidden:
        return Hidden(snapshot.taken_recordings, snapshot.taken_inputs, snapshot.cut_recordings)

    def joined(self, other: Hidden) -> Hidden:
        """With what is hidden in other units."""
        return Hidden(*(dict(sorted({**ours, **theirs}.items())) for ours, theirs in zip(self, other, strict=True)))

    def in_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with this hidden in it, and nothing else."""
        return replace(
            snapshot,
            taken_recordings=self.taken_recordings,
            taken_inputs=self.taken_inputs,
            cut_recordings=self.cut_recordings,
        )


NOTHING = Hidden({}, {}, {})


@dataclass(frozen=True)
class NameRule:
    """A rule on what an input is called."""

    RULES = ("speaker", "source", "uri_pattern")
    rule: str
    value: str  # of a speaker: the digest of the name, hex

    def holds(self, uri: str, source: str, speaker_label: str | None) -> bool:
        if self.rule == "uri_pattern":
            return fnmatchcase(uri, self.value)
        if self.rule == "source":
            return source == self.value
        names = (speaker_label, f"{source}:{speaker_label}") if speaker_label else ()
        return any(name_digest(name).hex() == self.value for name in names)


def _without(start: int, end: int, cuts: Iterable[Cut]) -> list[tuple[int, int]]:
    """What the cuts leave of ``[start, end)``."""
    left, at = [], start
    for cut in sorted(cuts):
        if cut.end_sample > at and cut.start_sample < end:
            left.append((at, cut.start_sample))
            at = cut.end_sample
    return [(a, b) for a, b in [*left, (at, end)] if a < b]


def _listed(found: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    return {unit: sorted(ids) for unit, ids in sorted(found.items())}


@lru_cache(maxsize=4)
def _read(uri: str, path: str) -> Tombstones:
    store = Store(uri)
    wholes = read_decision_table(store, path).wholes
    tables = []
    for role in ("rules", "tombstones"):
        with open_part(store, wholes[role].path) as file:
            tables.append(file.read(use_threads=False))
    return Tombstones(*tables)


NONE = Tombstones(TAKEDOWNS.empty_table(), TOMBSTONES.empty_table())
