"""How a snapshot comes about: what is committed, as one consistent view under the next free number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from manifests.commits import list_commits, read_commit
from manifests.corpus import INGEST, Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store


def publish(store: Store, units: Iterable[str], current: Mapping[str, str], clip_set: str) -> Snapshot:
    """The snapshot that names all that is committed of ``units`` and of the units before; the newest one when nothing changed.

    ``current`` maps the outputs that were asked for to their fingerprints. Who loses the race for a number rebases on
    the winner's snapshot and takes the next.
    """
    while True:
        number = latest_snapshot_number(store)
        before = read_snapshot(store, number) if number >= 0 else None
        made = _snapshot(store, number + 1, before, units, current, clip_set)
        if before is not None and {**asdict(made), "number": number} == asdict(before):
            return before
        if publish_snapshot(store, made):
            return made


def _snapshot(
    store: Store, number: int, before: Snapshot | None, units: Iterable[str], current: Mapping[str, str], clip_set: str
) -> Snapshot:
    # Another run may have published units that this one never saw: they stay.
    all_units = sorted({*units} | set(before.units if before else ()))
    known = set(all_units)
    outputs: dict[str, dict[str, list[str]]] = {}
    for (output, fingerprint), done in list_commits(store).items():
        outputs.setdefault(output, {})[fingerprint] = [unit for unit in done if unit in known]
    merged = {**(before.current if before else {}), **current}
    return Snapshot(number, all_units, outputs, merged, clip_set, _shadowed(store, all_units, merged[INGEST]))


def _shadowed(store: Store, units: list[str], ingest: str) -> dict[str, list[str]]:
    """Recordings that an earlier unit owns, by the later unit that holds their bytes again."""
    owned: set[bytes] = set()
    shadowed: dict[str, list[str]] = {}
    for unit in units:
        commit = read_commit(store, INGEST, ingest, unit)
        if commit is None:
            continue
        table = store.read_table(commit.objects["recordings"].path, columns=["recording_id"])
        held = set(table["recording_id"].to_pylist())
        if twice := sorted(r.hex() for r in held & owned):
            shadowed[unit] = twice
        owned |= held
    return shadowed
