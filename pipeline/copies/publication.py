"""A decision table over all clips of a corpus: described, made once, published."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping

from manifests.console import Progress, progress
from manifests.corpus import Corpus
from manifests.decision_tables import DecisionTable, Draft
from manifests.ids import digest_json
from manifests.lineage import fingerprint
from manifests.recipes import RecipeModel, resolved


def described(
    corpus: Corpus,
    name: str,
    version: str,
    config: RecipeModel,
    reads: Mapping[str, str],
    others: Mapping[str, str] | None = None,
) -> DecisionTable:
    """The head of a table over the snapshot, without its tables. Its fingerprint covers ``others`` beside ``reads``."""
    snapshot, parameters = corpus.snapshot, resolved(config)
    units = digest_json([snapshot.units, snapshot.shadowed, snapshot.superseded])
    mark = fingerprint(name, version, parameters, reads={**reads, **(others or {}), "units": units})
    return DecisionTable(name, mark, snapshot.number, dict(reads), parameters, shadowed=snapshot.shadowed)


def publish_made(
    corpus: Corpus, head: DecisionTable, scratch: str | None, make: Callable[[Draft, str, Progress], None]
) -> tuple[Corpus, bool] | None:
    """The corpus with the table that ``head`` describes, and whether it is new; None when another run has published one meanwhile.

    ``make`` fills the draft; its files lie in a folder below ``scratch`` (the system's by default) that goes when it ends.
    """
    before = corpus.snapshot.tables.get(head.name)
    if before is not None and corpus.decision_table(head.name).fingerprint == head.fingerprint:
        return corpus, False
    with Draft(corpus.store, head) as draft:
        with progress() as bars, tempfile.TemporaryDirectory(dir=scratch, prefix=f"stepwell-{head.name}-") as folder:
            make(draft, folder, bars)
        published = draft.publish(before)
    return None if published is None else (Corpus.open(corpus.store.uri, published.number), True)
