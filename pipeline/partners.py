"""The other side of a pair of recordings, which may lie in another unit."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from manifests.corpus import Corpus
from pipeline.candidates import Candidate, candidates, drop_reason, whole_recordings
from pipeline.facts import Ties, unit_facts
from pipeline.recipe import PackRecipe

# Units whose clips are remembered: inputs that make pairs are listed near one another as a rule.
UNITS_KEPT = 4


class Partners:
    """Reads the clips of partners, a unit at a time."""

    def __init__(self, corpus: Corpus, recipe: PackRecipe, ties: Ties) -> None:
        self._corpus, self._recipe, self._ties = corpus, recipe, ties
        self._clips_of: Callable[[str], dict[bytes, tuple[Candidate, ...]]] = lru_cache(UNITS_KEPT)(self._read)

    def of(self, clip: Candidate) -> tuple[Candidate, ...] | None:
        """All clips of the recording that makes a pair with the clip's; None where there is none, or one of them is left out."""
        place = self._ties.partners.get(clip.unit, {}).get(clip.clip["recording_id"].hex())
        return self._clips_of(place.unit).get(bytes.fromhex(place.recording_id)) if place else None

    def _read(self, unit: str) -> dict[bytes, tuple[Candidate, ...]]:
        """Recording -> its clips, of those recordings of the unit of which every clip stays."""
        ((view, facts),) = unit_facts(self._corpus, [unit], self._recipe.speakers_from)
        clips = list(candidates(view, facts, self._recipe, self._ties.groups))
        wholes = (tuple(clips[number] for number in whole) for whole in whole_recordings(clips))
        return {
            whole[0].clip["recording_id"]: whole
            for whole in wholes
            if all(drop_reason(clip, self._recipe) is None for clip in whole)
        }
