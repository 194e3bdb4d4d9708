"""The kinds of documents that a pack is made of, as its recipe names them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from manifests.recipes import RecipeModel

LANGUAGE = r"[a-z]{2,3}"


class ClipDocuments(RecipeModel):
    """A document a clip: ASR, TTS, captioning, and its text."""

    kind: Literal["clip"] = "clip"


class ContinuationDocuments(RecipeModel):
    """Consecutive clips of one channel of a recording, a turn each: what is said, and how it goes on.

    A clip that is left out ends the document: what is said in it would be skipped.
    """

    kind: Literal["continuation"] = "continuation"
    speakers: Literal["any", "one"] = "any"  # one: another speaker ends the document
    max_gap_s: float = Field(default=2.0, ge=0)  # from the end of a clip to the beginning of the next
    max_s: PositiveFloat = 120.0  # of all clips together
    max_turns: int = Field(default=16, ge=2)


class ConversationDocuments(RecipeModel):
    """Successive turns of two speakers of a recording, on one channel or two: the first is the human, the other the assistant.

    Clips of one speaker in a row are one turn. Who speaks is what diarization says, or where it was silent, and the recording has
    several channels, the channel. A clip that is left out ends the document, and so does a third speaker.
    """

    kind: Literal["conversation"] = "conversation"
    max_gap_s: float = Field(default=3.0, ge=0)  # from the end of a clip to the beginning of the next
    # Of a clip what somebody else talks into, and of two clips in a row what both say at once, as a part of the shorter one.
    max_overlap_share: float = Field(default=0.2, ge=0, le=1)
    max_s: PositiveFloat = 300.0  # of all clips together
    max_turns: int = Field(default=16, ge=2)


class PairDocuments(RecipeModel):
    """Two turns that say the same in two languages, by what manifests say of their inputs: a ``translation`` in text, or the
    ``pair_id`` that two inputs of one source share. A turn is a whole recording of one channel: one of which a clip is left out
    makes no pair.
    """

    kind: Literal["pair"] = "pair"
    # A document for each of these that a pair can serve, the first turn in the first language.
    directions: list[Annotated[str, Field(pattern=f"^{LANGUAGE}>{LANGUAGE}$")]] = Field(min_length=1)


class TextDocuments(RecipeModel):
    """A document a row of plain text; of files of lines (.txt), as many lines as have so many characters, blank ones left out."""

    kind: Literal["text"] = "text"
    line_chars: PositiveInt = 1  # at least; what is left at the end of a file may be shorter


DocumentKind = Annotated[
    ClipDocuments | ContinuationDocuments | ConversationDocuments | PairDocuments | TextDocuments, Field(discriminator="kind")
]
