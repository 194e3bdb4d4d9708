"""Who speaks in the clips of a unit, as the decision table ``speaker_id`` says (``pipeline.link_speakers`` makes it)."""

from __future__ import annotations

from manifests.clip_rows import SPEAKERS_TABLE, speaker_aliases
from manifests.corpus import UnitView


def clip_speakers(view: UnitView) -> list[bytes | None]:
    """The person of each of the unit's clips by the id that counts now; None where nobody knows.

    Raises RequestError where the table is not there, or does not know the unit.
    """
    now = speaker_aliases(view.corpus)
    return [now.get(given, given) for given in view.decisions(SPEAKERS_TABLE, "clips", ["speaker_id"])["speaker_id"].to_pylist()]
