"""The decision table ``takedowns`` as it grows: by a request, and by what came in beside one.

A build reads the tombstones as it begins. Whatever is taken down while it works it takes in; so whoever publishes units
holds their inputs against the rules on names once more, and gives what they take tombstones in the very snapshot that
first names the units (docs/decisions/0023). Inputs that were refused as taken down become tombstones there too.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from manifests.corpus import Corpus
from manifests.decision_tables import DecisionTable, Draft
from manifests.ids import digest_json
from manifests.lineage import fingerprint
from manifests.schema import TAKEDOWNS, TOMBSTONES
from manifests.snapshots import INGEST, snapshot_number
from manifests.store import Store
from manifests.tombstones import NAMED, TABLE, Tombstones
from pipeline.rights.matching import Match, tombstones_of

VERSION = "1"


def draft_takedowns(corpus: Corpus, tombstones: Tombstones) -> Draft:
    """The table with these tombstones, which hold all that the corpus has, in a draft of its own."""
    snapshot = corpus.snapshot
    parent = corpus.decision_table(TABLE).fingerprint if TABLE in snapshot.tables else None
    content = {
        "rules": tombstones.rules.num_rows,
        "rows": digest_json([row.hex() for row in tombstones.rows["id"].to_pylist()]),
    }
    reads = {INGEST: corpus.fingerprint(INGEST)}
    mark = fingerprint(TABLE, VERSION, content, reads=reads)
    draft = Draft(corpus.store, DecisionTable(TABLE, mark, snapshot.number, reads, {}, parent, snapshot.shadowed))
    draft.put("rules", [tombstones.rules], TAKEDOWNS)
    draft.put("tombstones", [tombstones.rows], TOMBSTONES)
    return draft


def with_late_inputs(corpus: Corpus, units: Sequence[str]) -> Tombstones:
    """The corpus' tombstones, and those of what its rules take of units that it did not have yet.

    ``corpus`` has the units, and their holdings; its tombstones are those of before. Where nothing was ever taken down,
    nothing is read.
    """
    tombstones = corpus.tombstones
    found = _late_inputs(corpus, units) if tombstones.rules.num_rows else {}
    return tombstones.grown(row for takedown, match in found.items() for row in tombstones_of(corpus, takedown, match))


def _late_inputs(corpus: Corpus, units: Sequence[str]) -> dict[bytes, Match]:
    """Takedown -> what it takes: inputs of its name with what their bytes became, and those that ingest refused for it."""
    tombstones, mark = corpus.tombstones, corpus.fingerprint(INGEST)
    found: dict[bytes, Match] = {}
    for unit in units:
        inputs = corpus.tables.read(INGEST, mark, unit, "inputs", [*NAMED, "recording_id"])
        for takedown, row in tombstones.missed(inputs):
            match = found.setdefault(takedown, Match())
            match.inputs.add(row["input_id"])
            match.recordings |= {row["recording_id"]} - {None}
        if inputs["recording_id"].null_count:
            refused = corpus.tables.read(INGEST, mark, unit, "quarantine", ["input_id", "takedown_id"])
            for row in refused.filter(pc.is_valid(refused["takedown_id"])).to_pylist():
                if row["input_id"] not in tombstones.inputs:
                    found.setdefault(row["takedown_id"], Match()).inputs.add(row["input_id"])
    return found


def drop_snapshots(store: Store, number: int) -> None:
    """Remove the snapshots before a number: whoever opened one would still see what was taken down since."""
    for path in store.objects("snapshots"):
        if 0 <= snapshot_number(path) < number:
            store.remove(path)
