"""The other side of a pair of recordings, which may lie in another unit."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from manifests.corpus import Corpus
from pipeline.candidates import Candidate, candidates, drop_reason
from pipeline.facts import Ties, unit_facts
from pipeline.recipe import PackRecipe

# Units whose clips are remembered: inputs that make pairs are listed near one another as a rule.
UNITS_KEPT = 4


class Partners:
    """Reads the clips of partners, a unit at a time."""

    def __init__(self, corpus: Corpus, recipe: PackRecipe, ties: Ties) -> None:
        self._corpus, self._recipe, self._ties = corpus, recipe, ties
        self._clips_of: Callable[[str], dict[bytes, Candidate]] = lru_cache(UNITS_KEPT)(self._read)

    def of(self, clip: Candidate) -> Candidate | None:
        """The one clip of the recording that makes a pair with the clip's; None where there is none, or it is left out."""
        place = self._ties.partners.get(clip.unit, {}).get(clip.clip["recording_id"].hex())
        return self._clips_of(place.unit).get(bytes.fromhex(place.recording_id)) if place else None

    def _read(self, unit: str) -> dict[bytes, Candidate]:
        """Recording -> its clip, of those of the unit that have one, which stays."""
        ((view, facts),) = unit_facts(self._corpus, [unit], self._recipe.speakers_from)
        clips = candidates(view, facts, self._recipe, self._ties.groups)
        return {c.clip["recording_id"]: c for c in clips if c.is_whole and drop_reason(c, self._recipe) is None}
