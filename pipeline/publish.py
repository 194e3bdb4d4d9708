"""How a snapshot comes about: what is committed, as one consistent view under the next free number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from manifests.commits import list_commits
from manifests.snapshots import INGEST, Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store
from manifests.tables import Compacted, UnitTables
from manifests.tombstones import NOTHING, Hidden, Tombstones
from pipeline.holdings import Ownership, held_by, settle, write_holdings


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
        owners, holdings = known, objects
    else:
        rows = held_by(UnitTables(store, made.compacted), ingest, fresh)
        owners, holdings = settle(known, store, objects, rows), write_holdings(store, objects, rows)
        # Bytes that were taken down while a build had them in its hands already.
        taken = taken.joined(Tombstones.of(store, made).hidden(rows))
    shadowed, superseded = _listed(owners.shadowed), _listed(owners.superseded)
    return taken.in_snapshot(replace(made, shadowed=shadowed, superseded=superseded, holdings=list(holdings)))


def _listed(hidden: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    return {unit: sorted(ids) for unit, ids in sorted(hidden.items()) if ids}
