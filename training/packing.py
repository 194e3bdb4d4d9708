"""Sequences of fixed length filled with whole documents: which documents stand in which sequence, by their lengths alone.

Sequences are numbered from 0 through a stage. Everything that takes part (ranks, micro-batches, prefetching) takes its own by
these numbers, and every process can work out all of them, so that the number of processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from manifests.errors import ContractError
from training.mixing import Mixer

WINDOW = 64  # documents of a task that are looked at for one that fits


class Source(Protocol):
    """A task's documents in their order, epoch after epoch, by their lengths."""

    def __len__(self) -> int:
        """Documents of an epoch."""

    def num_tokens(self, position: int) -> int:
        """Tokens of the document at a position of the order."""


@dataclass(frozen=True)
class Placed:
    """A document in a sequence: the ``position``-th of its task's order."""

    task: str
    position: int
    num_tokens: int


@dataclass(frozen=True)
class PackedSequence:
    """What stands in a sequence, from its start on; what is left behind the last document is padding."""

    number: int
    documents: tuple[Placed, ...]

    @property
    def num_tokens(self) -> int:
        return sum(document.num_tokens for document in self.documents)


class Packer:
    """Fills one sequence after the other.

    While the document whose turn it is fits, it is placed. Behind that the room is closed with the largest document that
    fits, out of all tasks' windows, as long as the mixer allows it. Windows end with their epoch: every document of an
    epoch is placed before one of the next.
    """

    def __init__(
        self, sources: Mapping[str, Source], shares: Mapping[str, float], sequence_length: int, longest: int, window: int = WINDOW
    ) -> None:
        """``longest``: tokens of the longest document of all sources. Raises ContractError when a sequence cannot hold it."""
        if longest > sequence_length:
            raise ContractError(f"a document of {longest} tokens for sequences of {sequence_length}; refuse it before packing")
        self.sequence_length = sequence_length
        self.mixer = Mixer(shares, longest)
        self.number = 0
        self._windows = {task: Window(source, window) for task, source in sources.items()}

    def next_sequence(self) -> PackedSequence:
        room, documents = self.sequence_length, list[Placed]()
        is_closing = False
        while True:
            found = None if is_closing else self._next_in_turn(room)
            is_closing = found is None
            found = found or self._largest_that_fits(room)
            if found is None:
                break
            self._windows[found.task].take(found.position)
            self.mixer.give(found.task, found.num_tokens)
            documents.append(found)
            room -= found.num_tokens
        self.number += 1
        return PackedSequence(self.number - 1, tuple(documents))

    def state_dict(self) -> dict[str, Any]:
        """Whole sequences only: what they were filled from is here, an unfinished one never is."""
        windows = {task: window.state_dict() for task, window in self._windows.items()}
        return {"number": self.number, "given": dict(self.mixer.given), "windows": windows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.number, self.mixer.given = int(state["number"]), dict(state["given"])
        for task, window in self._windows.items():
            window.load_state_dict(state["windows"][task])

    def _next_in_turn(self, room: int) -> Placed | None:
        """The head of the window whose turn it is, if it fits."""
        heads = {task: window.head() for task, window in self._windows.items()}
        task = self.mixer.turn({task: num_tokens for task, (_, num_tokens) in heads.items()})
        position, num_tokens = heads[task]
        return Placed(task, position, num_tokens) if num_tokens <= room else None

    def _largest_that_fits(self, room: int) -> Placed | None:
        best: Placed | None = None
        for task, window in self._windows.items():
            for position, num_tokens in window.documents().items():
                is_better = num_tokens <= room and (best is None or num_tokens > best.num_tokens)
                if is_better and self.mixer.allows(task, num_tokens):
                    best = Placed(task, position, num_tokens)
        return best


class Window:
    """The next documents of a task's order, of one epoch."""

    def __init__(self, source: Source, size: int) -> None:
        self._source, self._size = source, size
        self._next = 0  # position behind all that were looked at
        self._held: dict[int, int] = {}  # position -> tokens, in order

    def head(self) -> tuple[int, int]:
        """(position, tokens) of the first document that is not placed."""
        return next(iter(self.documents().items()))

    def documents(self) -> Mapping[int, int]:
        """Position -> tokens of those in the window, in order; never none."""
        length = len(self._source)
        end = (next(iter(self._held), self._next) // length + 1) * length
        while len(self._held) < self._size and self._next < end:
            self._held[self._next] = self._source.num_tokens(self._next)
            self._next += 1
        return self._held

    def take(self, position: int) -> None:
        del self._held[position]

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "held": list(self._held)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next = int(state["next"])
        self._held = {position: self._source.num_tokens(position) for position in state["held"]}
