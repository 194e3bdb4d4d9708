"""Which column of somebody else's table is which of our facts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from manifests.console import say
from manifests.errors import RequestError
from manifests.recipes import RecipeModel
from manifests.schema import CONSENTS
from pipeline.inputs import FACTS_FROM, beside

FACTS = (
    *("source", "licence", "consent", "terms", "attribution", "origin_uri", "synthesizer", "language", "speaker_label", "text"),
    *("translation", "translation_language", "pair_id"),
    *("reference_rttm_uri", "reference_stm_uri"),
)
# Facts whose values are places: relative ones are relative to the manifest, as paths of audio are.
PLACES = ("reference_rttm_uri", "reference_stm_uri")
AUDIO_COLUMNS = ("uri", "path", "audio")  # names that a column of audio has where the mapping gives none


class ColumnMap(RecipeModel):
    """Our fact: their column. A fact without a column here is taken from a column of its own name.

    ``uri`` names the column of the audio: addresses and paths, or embedded ``{bytes, path}``.
    """

    uri: str | None = None
    source: str | None = None
    licence: str | None = None
    consent: str | None = None
    terms: str | None = None
    attribution: str | None = None
    origin_uri: str | None = None
    synthesizer: str | None = None
    language: str | None = None
    speaker_label: str | None = None
    text: str | None = None
    translation: str | None = None
    translation_language: str | None = None
    pair_id: str | None = None
    reference_rttm_uri: str | None = None
    reference_stm_uri: str | None = None

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> ColumnMap:
        """From ``fact=column`` of a command line. Raises RequestError."""
        given: dict[str, str] = {}
        for pair in pairs:
            fact, sign, column = pair.partition("=")
            if not sign or not column:
                raise RequestError(f"column {pair!r} is not FACT=COLUMN; e.g. text=transcript")
            given[fact] = column
        try:
            return cls(**given)
        except ValidationError as error:
            unknown = error.errors()[0]["loc"][0]
            raise RequestError(f"column fact {str(unknown)!r} is unknown; facts are {', '.join(cls.model_fields)}") from error

    @property
    def given(self) -> dict[str, str]:
        """Fact -> column, for those that the mapping names."""
        return self.model_dump(exclude_none=True)

    def check(self, columns: Collection[str], what: str) -> None:
        """Raises RequestError for a mapped column that is not among ``columns``."""
        for fact, column in self.given.items():
            if column not in columns:
                raise RequestError(f"{what} has no column {column!r} ({fact}={column}); it has {', '.join(sorted(columns))}")

    def taken(self, columns: Collection[str]) -> dict[str, str]:
        """Fact -> column of the facts that a table with these columns gives."""
        mapped = {fact: column for fact, column in self.given.items() if fact in FACTS}
        used = set(self.given.values())
        own = {fact: fact for fact in FACTS if fact in columns and fact not in mapped and fact not in used}
        return {fact: column for fact, column in {**own, **mapped}.items() if column in columns}

    def audio_column(self, columns: Collection[str]) -> str | None:
        """Name of the column of the audio; None where there is none."""
        return self.uri or next((name for name in AUDIO_COLUMNS if name in columns), None)

    def unread(self, columns: Collection[str]) -> list[str]:
        """Columns that nothing takes, sorted."""
        return sorted(set(columns) - set(self.taken(columns).values()) - set(AUDIO_COLUMNS) - {self.uri})

    def tell_unread(self, columns: Collection[str], what: str) -> None:
        """One line about columns that nothing takes, unless a mapping says that this is meant."""
        if not self.given and (unread := self.unread(columns)):
            say(f"note: {what}: columns not taken: {', '.join(unread)}; --column FACT=COLUMN takes one")


def facts_of(row: Mapping[str, Any], taken: Mapping[str, str], origin: str, folder: str, what: str) -> dict[str, str]:
    """Facts of one row, as columns of INPUTS, with where they come from: ``<origin> (text=transcript, language=lang)``.

    Null and NaN, which tables of floats have for it, are no facts. Half a surrogate pair, which JSON can say and no table hold, becomes U+FFFD. Places are taken as lying beside the manifest, in ``folder``.
    Raises RequestError naming ``what``, the row, for a consent that is not one of CONSENTS.
    """
    found = {fact: taken[fact] for fact in FACTS if fact in taken and _is_told(row.get(taken[fact]))}
    if not found:
        return {}
    facts = {fact: _storable(str(row[column])) for fact, column in found.items()}
    if (consent := facts.get("consent", CONSENTS[0])) not in CONSENTS:
        raise RequestError(f"{what}: consent {consent!r} is not one of {', '.join(CONSENTS)}; mend it, or leave it out")
    for fact in facts.keys() & set(PLACES):
        facts[fact] = beside(folder, facts[fact])
    facts[FACTS_FROM] = f"{origin} ({', '.join(f'{fact}={column}' for fact, column in found.items())})"
    return facts


def _is_told(value: Any) -> bool:
    return value is not None and value == value


def _storable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
