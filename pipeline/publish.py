"""How a snapshot comes about: what is committed, as one consistent view under the next free number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from manifests.commits import list_commits
from manifests.console import counted, say
from manifests.corpus import Corpus
from manifests.decision_tables import read_decision_table
from manifests.snapshots import INGEST, Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store
from manifests.tables import Compacted, UnitTables
from manifests.tombstones import NOTHING, TABLE, Hidden, Tombstones
from pipeline.holdings import Ownership, held_by, read_holdings, settle, write_holdings
from pipeline.rights.takedown_table import draft_takedowns, drop_snapshots, with_late_inputs


def publish(store: Store, units: Iterable[str], current: Mapping[str, str], clip_set: str) -> Snapshot:
    """The snapshot that names all that is committed of ``units`` and of the units before; the newest one when nothing changed.

    ``current`` maps the outputs that were asked for to their fingerprints. Who loses the race for a number rebases on
    the winner's snapshot and takes the next.
    """
    asked = set(units)
    while True:
        number = latest_snapshot_number(store)
        before = read_snapshot(store, number) if number >= 0 else None
        # Another run may have published units that this one never saw: they stay.
        all_units = asked | set(before.units if before else ())
        merged = {**(before.current if before else {}), **current}
        compacted, tables = (before.compacted, before.tables) if before else ({}, {})
        made = assemble(store, number + 1, before, all_units, merged, clip_set, compacted, tables)
        if before is not None and replace(made, number=number) == before:
            return before
        if publish_snapshot(store, made):
            _tell_of_late_inputs(store, made, before)
            return made
        discard(store, made, before)


def assemble(
    store: Store,
    number: int,
    before: Snapshot | None,
    units: Iterable[str],
    current: Mapping[str, str],
    clip_set: str,
    compacted: Compacted,
    tables: Mapping[str, str],
) -> Snapshot:
    """The snapshot of all that is committed of ``units``, not published yet. Its holdings are written where they changed."""
    ordered = sorted(units)
    known = set(ordered)
    outputs: dict[str, dict[str, list[str]]] = {}
    for (output, fingerprint), done in list_commits(store).items():
        outputs.setdefault(output, {})[fingerprint] = [unit for unit in done if unit in known]
    places = {output: dict(made) for output, made in compacted.items()}
    made = Snapshot(number, ordered, outputs, dict(current), clip_set, compacted=places, tables=dict(tables))
    return _with_owners(store, made, before)


def discard(store: Store, made: Snapshot, before: Snapshot | None) -> None:
    """Remove what ``assemble`` wrote for a snapshot that another publisher forestalled."""
    for path in set(made.holdings) - set(before.holdings if before else ()):
        store.remove(path)
    if before is not None and (takedowns := made.tables.get(TABLE, "")) != before.tables.get(TABLE, ""):
        for path in (*(fact.path for fact in read_decision_table(store, takedowns).objects), takedowns):
            store.remove(path)


def _tell_of_late_inputs(store: Store, made: Snapshot, before: Snapshot | None) -> None:
    """Say what of the published units has tombstones from the first; snapshots that show its bytes by other names go."""
    if before is None or made.tables.get(TABLE) == before.tables.get(TABLE):
        return
    known, grown = Tombstones.of(store, before), Tombstones.of(store, made)
    say(f"note: {counted(len(grown.inputs - known.inputs), 'input')} of what was built had been taken down: no reader sees them")
    if num := len(grown.recordings - known.recordings):
        say(
            f"note: {counted(num, 'recording')} came in with them; `stepwell manifest takedown --rewrite --pack …` takes them away"
        )
        drop_snapshots(store, made.number)


def _with_owners(store: Store, made: Snapshot, before: Snapshot | None) -> Snapshot:
    """The snapshot with what is shadowed, superseded and taken down in it: reads of the units before nothing but their holdings.

    Where units went (a repair took them out) or were ingested otherwise, it starts from nothing: two reads a unit.
    """
    ingest = made.current.get(INGEST, "")
    units = made.outputs.get(INGEST, {}).get(ingest, [])
    held = before.outputs.get(INGEST, {}).get(ingest, []) if before else []
    if before is not None and before.current.get(INGEST) == ingest and set(held) <= set(units) and (before.holdings or not held):
        fresh = sorted(set(units) - set(held))
        known = Ownership({u: set(ids) for u, ids in before.shadowed.items()}, {u: set(i) for u, i in before.superseded.items()})
        objects, taken = before.holdings, Hidden.of(before)
    else:
        fresh, known, objects, taken = units, Ownership(), [], NOTHING
    if not fresh:
        return taken.in_snapshot(_owned(made, known, objects))
    rows = held_by(UnitTables(store, made.compacted), ingest, fresh)
    made = _owned(made, settle(known, store, objects, rows), write_holdings(store, objects, rows))
    corpus, tombstones = Corpus(store, {}, made), Tombstones.of(store, made)
    # What was taken down while a build had it in its hands already.
    grown = with_late_inputs(corpus, fresh)
    if grown == tombstones:
        return taken.joined(tombstones.hidden(rows)).in_snapshot(made)
    made = replace(made, tables={**made.tables, TABLE: draft_takedowns(corpus, grown).write()})
    # Units of before may hold the same bytes by other names.
    return grown.hidden(read_holdings(store, made.holdings)).in_snapshot(made)


def _owned(made: Snapshot, owners: Ownership, holdings: Iterable[str]) -> Snapshot:
    shadowed, superseded = _listed(owners.shadowed), _listed(owners.superseded)
    return replace(made, shadowed=shadowed, superseded=superseded, holdings=list(holdings))


def _listed(hidden: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    return {unit: sorted(ids) for unit, ids in sorted(hidden.items()) if ids}
