"""What decides that two clips are copies, and which of them stays."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from manifests.errors import RequestError
from manifests.recipes import RecipeModel

LOSSLESS = frozenset({"flac", "alac", "wavpack", "tta", "ape", "mlp", "shorten", "tak"})  # and whatever begins with pcm_
DIRECTIONS = ("highest", "lowest", "stated", "lossless")
# The best copy is the first by these, in this order; what is left of a tie, by the smallest clip_id.
KEEP = (
    "recording.codec:lossless",
    "recording.source_sample_rate_hz:highest",
    "recording.bandwidth_hz:highest",
    "clip.duration_s:highest",
    "input.licence:stated",
)


class Criterion(NamedTuple):
    """A column (full name) and what is better in it; a null is worse than any value."""

    column: str
    direction: str

    def rank(self, value: object) -> float:
        """The smaller, the better."""
        if value is None:
            return float("inf")
        if self.direction == "stated":
            return 0.0
        if self.direction == "lossless":
            name = str(value)
            return 0.0 if name in LOSSLESS or name.startswith("pcm_") else 1.0
        return -float(value) if self.direction == "highest" else float(value)  # type: ignore[arg-type]


def criteria(keep: tuple[str, ...]) -> list[Criterion]:
    """Raises RequestError for one that is not ``column:direction``."""
    found = []
    for text in keep:
        column, _, direction = text.partition(":")
        if not column or direction not in DIRECTIONS:
            raise RequestError(f"criterion {text!r} is not COLUMN:DIRECTION with one of {', '.join(DIRECTIONS)}")
        found.append(Criterion(column, direction))
    return found


class DedupConfig(RecipeModel):
    """What ``manifest dedup`` takes for a copy; all of it goes into the table's fingerprint."""

    content_layer: str = Field(default="content", description="layer of kind `content`")
    by: tuple[Literal["exact", "near", "text"], ...] = Field(default=("exact", "near"), description="what is compared")
    least_share: float = Field(
        default=0.8, gt=0, le=1, description="share of a clip's audible frames that a copy must have for the clip to be left out"
    )
    keep: tuple[str, ...] = Field(default=KEEP, description="COLUMN:DIRECTION in order of weight; which copy stays")
    text_column: str = Field(default="input.text", description="column of the texts that are compared")
    least_similarity: float = Field(default=0.9, gt=0, le=1, description="Jaccard similarity from which on texts are the same")
    leave_out_text: Literal["none", "same_speaker", "any"] = Field(
        default="none", description="whether a clip is left out because another one, of its own or any speaker, says its text"
    )

    @field_validator("by")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one of exact, near, text")
        return tuple(dict.fromkeys(value))


class DecontaminateConfig(RecipeModel):
    """What ``manifest decontaminate`` takes for contamination; all of it goes into the table's fingerprint."""

    content_layer: str = Field(default="content", description="layer of kind `content`, of the corpus and of the registries")
    by: tuple[Literal["near", "text"], ...] = Field(default=("near", "text"), description="what is compared")
    text_columns: tuple[str, ...] = Field(default=("input.text",), description="columns of the corpus that hold texts")
    ngram: int = Field(default=13, ge=2, description="words, or characters where a language writes no spaces, that tell a text")
    fewest_tokens: int = Field(
        default=5, ge=1, description="of a shorter text of the registry, which must then be the whole text"
    )
    least_ngram_share: float = Field(
        default=0.0, ge=0, le=1, description="part of the registry's n-grams that a clip must have; 0: any one"
    )
