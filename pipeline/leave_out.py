"""What decision tables leave out of a pack: clips with a ``drop_reason``, e.g. copies and contaminated ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manifests.corpus import Corpus, UnitView
from manifests.decision_tables import DecisionTable
from manifests.errors import RequestError

ROLE = "clips"  # of a decision table with a row a clip
REASON = "drop_reason"
VERBS = {"duplicates": "dedup", "contamination": "decontaminate"}  # table -> the verb of `stepwell manifest` that makes it


def check_tables(corpus: Corpus, names: Iterable[str]) -> None:
    """Raises RequestError unless each is a table of the snapshot that has a drop_reason for every clip, made of what counts now."""
    snapshot = corpus.snapshot
    for name in names:
        remedy = f"run `stepwell manifest {VERBS.get(name, '...')} {corpus.store.uri}` first"
        if name not in snapshot.tables:
            there = ", ".join(sorted(snapshot.tables)) or "none"
            raise RequestError(
                f"leave_out: corpus {corpus.store.uri!r} has no decision table {name!r} (tables: {there}); {remedy}"
            )
        head = corpus.decision_table(name)
        if ROLE not in head.roles:
            raise RequestError(f"leave_out: decision table {name!r} has no rows of clips; name one of {', '.join(VERBS)}")
        if lacking := sum(head.find(ROLE, unit, snapshot) is None for unit in snapshot.units):
            raise RequestError(f"leave_out: decision table {name!r} lacks {lacking} of {len(snapshot.units)} units; {remedy}")
        for read, mark in changed_reads(corpus, head).items():
            raise RequestError(
                f"leave_out: decision table {name!r} was made of {read!r} ({head.reads[read]}), which is {mark} by now; {remedy}"
            )
        if snapshot.units and REASON not in UnitView(corpus, snapshot.units[0]).decisions(name, ROLE).column_names:
            raise RequestError(f"leave_out: decision table {name!r} has no {REASON}; name one of {', '.join(VERBS)}")


def changed_reads(corpus: Corpus, head: DecisionTable) -> dict[str, str]:
    """What a decision table was made of that is another one by now: output, or ``tables/NAME``, -> fingerprint now."""
    snapshot = corpus.snapshot
    now = {**snapshot.current, **{f"tables/{table}": corpus.decision_table(table).fingerprint for table in snapshot.tables}}
    return {read: now[read] for read, mark in head.reads.items() if now.get(read, mark) != mark}


def drop_reasons(view: UnitView, names: Sequence[str]) -> list[str | None]:
    """Of each of the unit's clips the first reason that a table has against it, as ``table.reason``."""
    found: list[str | None] = [None] * view.clips(["clip_id"]).num_rows
    for name in reversed(names):
        reasons = view.decisions(name, ROLE, [REASON])[REASON].to_pylist()
        found = [before if reason is None else f"{name}.{reason}" for before, reason in zip(found, reasons, strict=True)]
    return found
