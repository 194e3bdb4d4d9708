"""What the manifest of a pack says of documents, as much as the trainer needs before it reads one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tokenization.text import TextTokenizer

CAPTIONS = {"en": "caption_en", "zh": "caption_zh"}  # language -> column of a turn


@dataclass(frozen=True, slots=True)
class EntryTurn:
    """One turn. ``number`` is its place in the document, from 0."""

    number: int
    role: str | None
    text: str
    text_ids: tuple[int, ...]
    language: str | None
    num_samples: int | None
    num_codes: int | None
    captions: Mapping[str, tuple[int, ...]]  # language -> ids of the sentence about how the turn sounds


@dataclass(frozen=True, slots=True)
class Entry:
    """Turns of a document that make one example: all of them, but where a long document is split."""

    key: str
    shard: str
    relation: str | None
    tasks: frozenset[str]  # what the packer says it can serve
    turns: tuple[EntryTurn, ...]

    @property
    def text(self) -> str:
        """Texts of the turns, a line each."""
        return "\n".join(turn.text for turn in self.turns)

    def turn(self, number: int) -> EntryTurn:
        """The turn of that number in the document."""
        return self.turns[number - self.turns[0].number]

    def between(self, start: int, stop: int) -> Entry:
        """The turns at places ``[start, stop)`` of this entry, as an entry of their own."""
        return replace(self, turns=self.turns[start:stop])


def entry_of(row: Mapping[str, Any], text: TextTokenizer) -> Entry:
    """The entry of a row of DOCUMENTS."""
    turns = tuple(
        EntryTurn(
            number=number,
            role=turn["role"],
            text=turn["text"] or "",
            text_ids=tuple(text.encode(turn["text"] or "")),
            language=turn["language"],
            num_samples=turn["num_samples"],
            num_codes=turn["num_codes"],
            captions={name: tuple(text.encode(turn[column])) for name, column in CAPTIONS.items() if turn[column]},
        )
        for number, turn in enumerate(row["turns"])
    )
    return Entry(row["key"], row["shard"], row["relation"], frozenset(row["tasks"]), turns)
