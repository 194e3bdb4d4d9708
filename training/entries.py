"""What the manifest of a pack says of documents, as much as the trainer needs before it reads one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, overload

from manifests.errors import ContractError
from tokenization.text import TextTokenizer

CAPTIONS = {"en": "caption_en", "zh": "caption_zh"}  # language -> column of a turn


class TextIds(Sequence[int]):
    """Ids of a text whose number the pack states: tokenised whenever they are looked at, and not kept.

    Most of what a large pack's entries would take, in time and in memory, is ids that no plan looks at.
    """

    __slots__ = ("_length", "_text", "_tokenizer")

    def __init__(self, text: str, length: int, tokenizer: TextTokenizer) -> None:
        self._text, self._length, self._tokenizer = text, length, tokenizer

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        return self._ids()[place]

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids())

    def _ids(self) -> list[int]:
        ids = self._tokenizer.encode(self._text)
        if len(ids) != self._length:
            raise ContractError(
                f"text {self._text[:40]!r} has {len(ids)} tokens, the manifest says {self._length}; pack again with this tokenizer"
            )
        return ids


@dataclass(frozen=True, slots=True)
class EntryTurn:
    """One turn. ``number`` is its place in the document, from 0."""

    number: int
    role: str | None
    text: str
    text_ids: Sequence[int]
    language: str | None
    num_samples: int | None
    num_codes: int | None
    captions: Mapping[str, str]  # language -> sentence about how the turn sounds


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
            text_ids=_text_ids(turn["text"] or "", turn["num_text_tokens"], text),
            language=turn["language"],
            num_samples=turn["num_samples"],
            num_codes=turn["num_codes"],
            captions={language: turn[column] for language, column in CAPTIONS.items() if turn[column]},
        )
        for number, turn in enumerate(row["turns"])
    )
    # One object for all documents that share a shard's name or serve the same tasks.
    return Entry(row["key"], sys.intern(row["shard"]), row["relation"], _shared(tuple(row["tasks"])), turns)


@lru_cache(maxsize=1024)
def _shared(tasks: tuple[str, ...]) -> frozenset[str]:
    return frozenset(tasks)


def _text_ids(text: str, known_length: int | None, tokenizer: TextTokenizer) -> Sequence[int]:
    """A pack that was made without a tokenizer states no number."""
    return tuple(tokenizer.encode(text)) if known_length is None else TextIds(text, known_length, tokenizer)
