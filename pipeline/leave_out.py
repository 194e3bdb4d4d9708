"""What decision tables leave out of a pack: clips with a ``drop_reason``, e.g. copies and contaminated ones; and what runs blame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from manifests.console import counted
from manifests.corpus import Corpus, UnitView
from manifests.decision_tables import DecisionTable
from manifests.errors import RequestError
from manifests.snapshots import clips_output
from manifests.spikes import Spike, read_spikes

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


def drop_reasons(view: UnitView, names: Sequence[str], named: Mapping[str, str]) -> list[str | None]:
    """Of each of the unit's clips the first reason that a table has against it, as ``table.reason``, or that it is named with."""
    found = [named.get(clip.hex()) for clip in view.clips(["clip_id"])["clip_id"].to_pylist()]
    for name in reversed(names):
        reasons = view.decisions(name, ROLE, [REASON])[REASON].to_pylist()
        found = [before if reason is None else f"{name}.{reason}" for before, reason in zip(found, reasons, strict=True)]
    return found


def named_by_runs(uris: Sequence[str], corpus: Corpus | None) -> dict[str, str]:
    """What the ``spikes.jsonl`` of some runs blame: clip ids (without a corpus: keys of documents of plain text) -> ``spikes.cause``.

    Raises RequestError for a file that cannot be read, and for one of another corpus or clip set: nothing in it would be found.
    """
    found: dict[str, str] = {}
    for uri in uris:
        for spike in read_spikes(uri):
            _check_source(uri, spike, corpus)
            for document in spike.documents:
                for name in document.clip_ids if corpus else [document.key]:
                    found.setdefault(name, f"spikes.{spike.cause}")
    return dict(sorted(found.items()))


def check_found(named: Mapping[str, str], num_found: int) -> None:
    """Raises RequestError unless all documents of plain text that are named were found: a corpus has an id to compare, text has keys alone."""
    if num_found < len(named):
        raise RequestError(
            f"--leave-out (leave_out_named): {num_found} of {counted(len(named), 'key')} of plain text found; a key is of a file's path below "
            "the sources' common folder, a row's place in it and its text, by line_chars; give the sources and the recipe of the pack "
            "that the run was trained on, or leave the names out"
        )


def _check_source(uri: str, spike: Spike, corpus: Corpus | None) -> None:
    own_id, own_clips = (corpus.corpus_id, corpus.fingerprint(clips_output(corpus.clip_set))) if corpus else (None, None)
    if spike.corpus_id != own_id:
        told, here = (f"corpus {name}" if name else "plain text" for name in (spike.corpus_id, own_id))
        raise RequestError(
            f"--leave-out {uri!r} is of a run on {told}, and this is {here}; give the file of a run on a pack of the same source"
        )
    if spike.clips_fingerprint != own_clips:
        raise RequestError(
            f"--leave-out {uri!r} names clips of clip set {spike.clips_fingerprint}, and the corpus has {own_clips} by now; "
            "name them in the recipe's leave_out_named, or train on a pack of these clips first"
        )
