"""Which documents of a split can serve which task, and why the others cannot: by the manifest table, without opening a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from manifests.contracts import MODEL_RATE_HZ
from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.stretches import Heard
from tokenization.text import TextTokenizer
from training.entries import Entry, entry_of
from training.layouts import HUMAN, NEEDS, Lacking, Layouts
from training.lengths import num_dropped_samples
from training.recipe import Task

COLUMNS = ("key", "shard", "relation", "tasks", "turns")  # of DOCUMENTS, what an entry is made of
ROWS = 4096  # made into Python's objects at a time: these take many times what the table does


@dataclass(frozen=True)
class Split:
    """A split's entries, those that serve each task, and the number refused for each task and reason."""

    name: str
    entries: tuple[Entry, ...]  # one a document; behind them the parts of documents that are split
    num_documents: int
    eligible: dict[Task, tuple[int, ...]] = field(default_factory=dict)  # positions in ``entries``
    num_tokens: dict[Task, np.ndarray] = field(default_factory=dict)  # int64, of the example of each eligible one
    refused: dict[Task, Counter[str]] = field(default_factory=dict)
    tails: dict[Task, int] = field(default_factory=dict)  # pieces of audio of eligible ones that are too short to be heard


def read_split(pack: Pack, name: str, layouts: Layouts, tasks: Collection[Task], max_tokens: int) -> Split:
    """The split of that name, for examples of at most ``max_tokens``. Raises as ``read_entries``."""
    return serve(name, read_entries(pack, name, layouts.text), layouts, tasks, max_tokens)


def read_entries(pack: Pack, name: str, text: TextTokenizer) -> tuple[Entry, ...]:
    """One a document. Raises RequestError when the pack has no such split, or when its audio is not at 16 kHz."""
    rows = pack.documents(name)
    if pack.sample_rate_hz != MODEL_RATE_HZ and rows["num_samples"].null_count < len(rows):
        raise RequestError(
            f"pack {pack.store.uri!r} holds audio at {pack.sample_rate_hz} Hz; the encoder hears 16000: pack it so"
        )
    batches = rows.select(COLUMNS).to_batches(max_chunksize=ROWS)
    return tuple(entry_of(row, text) for batch in batches for row in batch.to_pylist())


def serve(name: str, documents: Sequence[Entry], layouts: Layouts, tasks: Collection[Task], max_tokens: int) -> Split:
    """Which of the documents, or parts of them, serve the tasks with examples of at most ``max_tokens``.

    A longer example is refused, or split between turns where the task takes any number of them; it is never cut.
    """
    entries, made = list(documents), Split(name, (), len(documents))
    for task in tasks:
        places, lengths, refused, tails = list[int](), list[int](), Counter[str](), 0
        for place, document in enumerate(documents):
            for part in parts(task, document, layouts, max_tokens):
                if isinstance(part, str):
                    refused[part] += 1
                    continue
                places.append(place if part.entry is document else len(entries))
                if part.entry is not document:
                    entries.append(part.entry)
                lengths.append(part.num_tokens)
                tails += part.num_tails
        made.eligible[task], made.num_tokens[task] = tuple(places), np.array(lengths, dtype=np.int64)
        made.refused[task], made.tails[task] = refused, tails
    return replace(made, entries=tuple(entries))


@dataclass(frozen=True)
class Part:
    """What one example is made from: a document, or some turns of it."""

    entry: Entry
    num_tokens: int
    num_tails: int


def parts(task: Task, document: Entry, layouts: Layouts, max_tokens: int) -> Iterator[Part | str]:
    """The parts of a document that serve a task, in order, and why what is left cannot, as stable codes."""
    for whole in _wholes(task, document):
        part = _part(task, whole, layouts)
        if isinstance(part, str) or part.num_tokens <= max_tokens or task is Task.CTC:
            yield part
        elif NEEDS[task].most_turns is not None:
            yield "too_long"
        else:
            yield from _split(task, whole, layouts, max_tokens)


def _wholes(task: Task, document: Entry) -> Iterator[Entry]:
    """Documents to lay out: an example a caption; a conversation up to its last answer."""
    turns = document.turns
    if task is Task.CAPTIONING and len(turns) == 1 and len(turns[0].captions) > 1:
        for language, caption in turns[0].captions.items():
            yield replace(document, turns=(replace(turns[0], captions={language: caption}),))
    elif task is Task.CONVERSATION and turns[-1].role == HUMAN and len(turns) > 1:
        yield document.between(0, len(turns) - 1)
    else:
        yield document


def _part(task: Task, entry: Entry, layouts: Layouts) -> Part | str:
    try:
        stretches = layouts.of(task, entry)
    except Lacking as lack:
        return lack.reason
    heard = [entry.turn(stretch.turn).num_samples or 0 for stretch in stretches if isinstance(stretch, Heard)]
    return Part(entry, layouts.num_tokens(stretches, entry), sum(num_dropped_samples(num) > 0 for num in heard))


def _split(task: Task, entry: Entry, layouts: Layouts, max_tokens: int) -> Iterator[Part | str]:
    """As many turns as fit, again and again. A conversation is split in front of a human's turn only.

    Turns that no example holds are refused: too long with their next, or alone at the end.
    """
    turns, fewest = entry.turns, NEEDS[task].fewest_turns
    borders = [0, *(n for n in range(1, len(turns)) if task is not Task.CONVERSATION or turns[n].role == HUMAN), len(turns)]
    start = 0
    while start < len(borders) - 1:
        fitting, why = None, "lone_turn"
        for stop in range(start + 1, len(borders)):
            if borders[stop] - borders[start] < fewest:
                continue
            part = _part(task, entry.between(borders[start], borders[stop]), layouts)
            if isinstance(part, str) or part.num_tokens > max_tokens:
                why = part if isinstance(part, str) else "too_long"
                break
            fitting, after = part, stop
        if fitting is None:
            yield why
            start += 1
        else:
            yield fitting
            start = after
