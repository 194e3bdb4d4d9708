"""Who speaks in the clips of a unit, as the decision table ``speaker_id`` says (``pipeline.link_speakers`` makes it)."""

from __future__ import annotations

from functools import lru_cache

from manifests.corpus import Corpus, UnitView
from manifests.store import Store

TABLE = "speaker_id"


def clip_speakers(view: UnitView) -> list[bytes | None]:
    """The person of each of the unit's clips by the id that counts now; None where nobody knows.

    Raises RequestError where the table is not there, or does not know the unit.
    """
    now = aliases(view.corpus)
    return [now.get(given, given) for given in view.decisions(TABLE, "clips", ["speaker_id"])["speaker_id"].to_pylist()]


def aliases(corpus: Corpus) -> dict[bytes, bytes]:
    """Alias -> id that counts now. An id that is none of them counts itself."""
    return _aliases(corpus.store.uri, corpus.decision_table(TABLE).wholes["aliases"].path)


@lru_cache(maxsize=4)
def _aliases(uri: str, path: str) -> dict[bytes, bytes]:
    """Read once a process: who packs asks for every unit."""
    rows = Store(uri).read_table(path)
    return dict(zip(rows["alias"].to_pylist(), rows["speaker_id"].to_pylist(), strict=True))
