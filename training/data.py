"""The batches of a stage, step by step, in an order that is a pure function of (seed, stage, step).

What a step reads depends neither on how many processes train nor on where a run was stopped: every process works out the
whole order, which needs lengths only, and reads its own documents.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from manifests.errors import MismatchError, RequestError, WorkError
from manifests.packs import Document, Pack
from training.augmentation import HeardDocuments
from training.batches import Batch, CtcBatch, collate, collate_ctc
from training.documents import Split
from training.entries import Entry
from training.examples import NO_DOCUMENT, Example, ExampleMaker, recombine
from training.feature_cache import FeatureCache
from training.layouts import WITHOUT_HEARING, WITHOUT_READING
from training.order import Order, generator
from training.packing import PackedSequence, Packer
from training.recipe import CtcStage, PretrainStage, Stage, Task, TrainingRecipe

FACTS_BYTES = 1 << 12  # of a document besides its arrays: K.json as Python's objects is ten times the file


@dataclass(frozen=True)
class Kept:
    """A document in memory, which may have been read without its audio."""

    document: Document
    has_audio: bool

    @property
    def num_bytes(self) -> int:
        arrays = [array for turn in self.document.turns for array in (turn.audio, turn.codes) if array is not None]
        return FACTS_BYTES + sum(int(array.nbytes) for array in arrays)


class DocumentReader:
    """Documents of a pack by entry, read lazily; the last ones stay in memory, up to a number of bytes, nearly all of them audio.

    Measures read here while the next steps are worked out: one thread at a time.
    """

    def __init__(self, pack: Pack, cached_audio_bytes: int) -> None:
        self._pack, self._room, self._lock = pack, cached_audio_bytes, threading.Lock()
        self._cache: OrderedDict[tuple[str, str], Kept] = OrderedDict()

    def read_for(self, task: Task, entry: Entry) -> Document | None:
        """What an example of the task is made of besides the entry: none for text, and without audio where none is heard.

        Raises as ``read``.
        """
        return None if task in WITHOUT_READING else self.read(entry, with_audio=task not in WITHOUT_HEARING)

    def read(self, entry: Entry, *, with_audio: bool = True) -> Document:
        """Raises WorkError where the shard is gone or damaged, naming it and the document.

        Without audio it may have some all the same: it was kept.
        """
        where = (entry.shard, entry.key)
        with self._lock:
            kept = self._cache.pop(where, None)
            if kept is None or (with_audio and not kept.has_audio):
                self._room += kept.num_bytes if kept else 0
                kept = Kept(self._whole(entry, with_audio), with_audio)
                self._room -= kept.num_bytes
            self._cache[where] = kept  # the last to be put out
            while self._room < 0 and len(self._cache) > 1:
                self._room += self._cache.popitem(last=False)[1].num_bytes
            return kept.document

    def _whole(self, entry: Entry, with_audio: bool) -> Document:
        try:
            return self._pack.read(entry.shard, entry.key, with_audio=with_audio)
        # LibsndfileError, which a damaged FLAC raises, is a RuntimeError.
        except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WorkError(
                f"document {entry.key!r} in shard {entry.shard!r} of pack {self._pack.store.uri!r} cannot be read "
                f"({type(error).__name__}: {error}); bring the shard and its index back whole, then go on (a run: with --resume)"
            ) from error


class StageData(Protocol):
    """What the loop asks for. Iterating is ``next_step``; ``load_state_dict`` goes on from any step."""

    def next_step(self) -> Sequence[Batch] | Sequence[CtcBatch]:
        """The micro-batches of the step, on the CPU; moves on to the next."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on, as JSON values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises MismatchError when the state is another stage's or seed's."""


@dataclass(frozen=True)
class Batching:
    """What turns examples into tensors besides the examples."""

    num_mels: int
    pad_id: int
    cache: FeatureCache | None = None  # of a frozen encoder's frames
    left_out: Collection[str] = ()  # keys of documents whose places stay empty; more may come between two steps


def stage_data(
    split: Split,
    reader: DocumentReader,
    maker: ExampleMaker,
    recipe: TrainingRecipe,
    stage: Stage,
    batching: Batching,
    rank: int = 0,
    world: int = 1,
) -> StageData:
    """The data of a stage over the documents that ``split`` says serve its tasks; of ``world`` processes, the part of ``rank``.

    Raises as ``served_shares`` and ``size_of_part``.
    """
    if isinstance(stage, CtcStage):
        documents = TaskDocuments(Task.CTC, split, reader, maker, recipe.seed, stage.name)
        return CtcData(documents, recipe, stage, batching, rank, world)
    return PackedData(task_documents(split, reader, maker, recipe, stage), recipe, stage, batching, rank, world)


def size_of_part(stage: Stage, world: int) -> int:
    """Documents or sequences of a step that each of ``world`` processes gets. Raises RequestError where they do not come out even."""
    name, whole = (
        ("batch_documents", stage.batch_documents)
        if isinstance(stage, CtcStage)
        else ("sequences_per_step", stage.sequences_per_step)
    )
    if whole % (world * stage.micro_batches):
        raise RequestError(
            f"stage {stage.name!r}: {name} {whole} must be a multiple of {world} processes times micro_batches {stage.micro_batches}; "
            "change one of them"
        )
    return whole // world


def served_shares(split: Split, stage: PretrainStage) -> dict[Task, float]:
    """Shares of the tasks that documents serve within the stage's sequences; a task that is absent may be skipped.

    Raises RequestError when one is absent that may not be, and when none is left.
    """
    shares = {}
    for task, given in stage.tasks.items():
        if len(split.eligible[task]):
            shares[task] = given.share
        elif given.absent == "refuse":
            raise RequestError(
                f"stage {stage.name!r}: none of the {split.num_documents} documents of split {split.name!r} serves task "
                f"{task.value!r} in sequences of {stage.sequence_length} (refused: {dict(split.refused[task])}); pack documents for it, "
                "take the task out of the recipe, or say absent: skip"
            )
    if not shares:
        raise RequestError(f"stage {stage.name!r}: no document of split {split.name!r} serves any of its tasks; pack some for it")
    return shares


class TaskDocuments:
    """Documents that serve one task, in their order, epoch after epoch."""

    def __init__(self, task: Task, split: Split, reader: DocumentReader, maker: ExampleMaker, seed: int, stage: str) -> None:
        self.task, self.maker = task, maker
        self._split, self._reader, self._places = split, reader, split.eligible[task]
        self._lengths = split.num_tokens[task]
        shards = np.array([split.entries[place].shard for place in self._places])
        self._order = Order(seed, f"{stage} {task.value}", shards)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self._lengths.max())

    def num_tokens(self, position: int) -> int:
        return int(self._lengths[self._order.document(position)])

    def entry(self, position: int) -> Entry:
        return self._split.entries[self._places[self._order.document(position)]]

    def document(self, position: int) -> Document:
        return self._reader.read(self.entry(position))

    def example(self, position: int) -> Example:
        entry = self.entry(position)
        return self.maker.make(self.task, entry, self._reader.read_for(self.task, entry))

    def pass_by(self, position: int) -> None:
        """Another process takes the example: nothing of it need be kept."""


class RepeatDocuments(TaskDocuments):
    """Repeat examples: the text of each document, or spans of all texts, at a random pace. Which, its position decides.

    Spans of all texts are of no one document, and say so; documents that are left out are still among the texts, for lengths may not move.
    """

    def __init__(
        self, split: Split, reader: DocumentReader, maker: ExampleMaker, recipe: TrainingRecipe, stage: PretrainStage
    ) -> None:
        super().__init__(Task.REPEAT, split, reader, maker, recipe.seed, stage.name)
        self._recipe, self._name, self._most = recipe.repeat, f"{recipe.seed} {stage.name} repeat", stage.sequence_length
        documents = split.entries[: split.num_documents]
        self._texts = [turn.text_ids for entry in documents for turn in entry.turns if turn.text_ids]
        self._made: dict[int, Example] = {}  # of positions whose length was asked for, until they are taken

    @property
    def longest(self) -> int:
        """At most."""
        spans = self._recipe.max_spans * self._recipe.max_span_tokens
        longest = max(spans, max(len(self._split.entries[place].turns[0].text_ids) for place in self._places))
        return min(self._most, super().longest + math.ceil(longest * (1.0 + self._recipe.max_patches_per_token)))

    def num_tokens(self, position: int) -> int:
        if position not in self._made:
            self._made[position] = self._make(position)
        return len(self._made[position].ids)

    def example(self, position: int) -> Example:
        return self._made.pop(position, None) or self._make(position)

    def pass_by(self, position: int) -> None:
        self._made.pop(position, None)

    def _make(self, position: int) -> Example:
        entry, rng = self.entry(position), generator(f"{self._name} {position}")
        own = entry.turns[0].text_ids
        ids = recombine(self._texts, self._recipe, rng) if rng.random() < self._recipe.recombined_share else own
        stretch = rng.uniform(1.0, self._recipe.max_patches_per_token)
        around = super().num_tokens(position) - 2 * len(own)  # prompt, wrappers and stop
        ids = own if around + 2 * len(ids) > self._most else ids
        room = self._most - around - len(ids)
        document_id = entry.key if ids is own else NO_DOCUMENT
        return self.maker.repeat(document_id, ids, max(len(ids), min(room, round(stretch * len(ids)))), rng)


def task_documents(
    split: Split, reader: DocumentReader, maker: ExampleMaker, recipe: TrainingRecipe, stage: PretrainStage
) -> dict[Task, TaskDocuments]:
    """Of the tasks that the split serves, in the recipe's order."""
    return {
        task: RepeatDocuments(split, reader, maker, recipe, stage)
        if task is Task.REPEAT
        else TaskDocuments(task, split, reader, maker, recipe.seed, stage.name)
        for task in served_shares(split, stage)
    }


class PackedData:
    """Micro-batches of packed sequences. Of ``world`` processes, ``rank`` gets the sequences of its share of every step."""

    def __init__(
        self,
        documents: Mapping[Task, TaskDocuments],
        recipe: TrainingRecipe,
        stage: PretrainStage,
        batching: Batching,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._size = size_of_part(stage, world)
        self.documents, self._stage, self._batching = documents, stage, batching
        self._identity = {"stage": stage.name, "seed": recipe.seed}
        self._first = rank * self._size
        longest = max(source.longest for source in documents.values())
        sources = {task.value: source for task, source in documents.items()}
        shares = {task.value: stage.tasks[task].share for task in documents}
        self._packer = Packer(sources, shares, stage.sequence_length, longest)

    def next_step(self) -> list[Batch]:
        sequences = [self._packer.next_sequence() for _ in range(self._stage.sequences_per_step)]
        size, own = self._size, slice(self._first, self._first + self._size)
        for sequence in sequences[: own.start] + sequences[own.stop :]:
            self._pass_by(sequence)
        rows = [self._examples(sequence) for sequence in sequences[own]]
        part, width, batching = size // self._stage.micro_batches, self._stage.sequence_length, self._batching
        return [
            collate(rows[start : start + part], width, batching.num_mels, batching.pad_id, batching.cache)
            for start in range(0, size, part)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {**self._identity, "packer": self._packer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_identity(self._identity, state)
        self._packer.load_state_dict(state["packer"])

    def _examples(self, sequence: PackedSequence) -> list[Example]:
        """Of the documents that are not left out; behind them the sequence has so much more padding."""
        kept = []
        for placed in sequence.documents:
            documents = self.documents[Task(placed.task)]
            if documents.entry(placed.position).key in self._batching.left_out:
                documents.pass_by(placed.position)
            else:
                kept.append(documents.example(placed.position))
        return kept

    def _pass_by(self, sequence: PackedSequence) -> None:
        for placed in sequence.documents:
            self.documents[Task(placed.task)].pass_by(placed.position)


class CtcData:
    """Micro-batches of audio and labels; within each, audio of like lengths lies together.

    Of ``world`` processes, ``rank`` gets the documents of its share of every step.
    """

    def __init__(
        self,
        documents: TaskDocuments,
        recipe: TrainingRecipe,
        stage: CtcStage,
        batching: Batching,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._size = size_of_part(stage, world)
        self._first = rank * self._size
        self._stage, self._documents, self._left_out = stage, documents, batching.left_out
        self._identity = {"stage": stage.name, "seed": recipe.seed}
        self._heard = HeardDocuments(documents, stage, f"{recipe.seed} {stage.name}", batching.num_mels)
        self._tag_weights = [head.weight for head in stage.tags.values()]
        self._position = 0

    def next_step(self) -> list[CtcBatch]:
        first, part = self._position + self._first, self._size // self._stage.micro_batches
        self._position += self._stage.batch_documents
        batches = []
        for start in range(first, first + self._size, part):
            kept = [p for p in range(start, start + part) if self._documents.entry(p).key not in self._left_out]
            batches += collate_ctc([self._heard.example(position) for position in kept], self._tag_weights)
        return batches

    def state_dict(self) -> dict[str, Any]:
        return {**self._identity, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_identity(self._identity, state)
        self._position = int(state["position"])


def _check_identity(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    found = {name: state[name] for name in own}
    if found != own:
        raise MismatchError(f"data order of {found} cannot go on as {own}; resume with the recipe that began the run")
