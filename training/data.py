# ruff: noqa: N815 (fields that hold tensors carry shape suffixes too)
"""Batches in an order that is a pure function of (seed, stage, step), so that a run resumes where it stopped, exactly.

Shapes: B examples, T positions, A audio pieces (row-major order of their examples), C mel bands, M mel frames, L labels.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from manifests.errors import MismatchError
from manifests.packs import Document, Pack
from tokenization.stretches import TokenKind
from training.documents import Split
from training.entries import Entry
from training.examples import Example, ExampleMaker, recombine
from training.features import log_mel
from training.layouts import WITHOUT_READING
from training.lengths import num_patches, num_valid_frames
from training.recipe import CtcStage, Stage, Task, TrainingRecipe

CYCLE = 1000  # slots in which the tasks' shares come out exactly (to 1/1000)


@dataclass(frozen=True)
class Batch:
    """Examples of one micro-batch, padded on the right. Everything lies on the model's device."""

    keys: tuple[str, ...]
    ids_BT: torch.Tensor  # int64
    lengths_B: torch.Tensor  # int64
    kinds_BT: torch.Tensor  # int64 of TokenKind
    weights_BT: torch.Tensor  # float32, 0 = no loss
    heard_BT: torch.Tensor  # bool
    mels_ACM: torch.Tensor | None = None  # float32, zero-padded
    num_valid_A: torch.Tensor | None = None  # int64, mel frames that count
    num_patches_A: torch.Tensor | None = None  # int64


class DocumentReader:
    """Documents of a pack by entry, read lazily; the last ones stay in memory, up to a number of bytes of audio."""

    def __init__(self, pack: Pack, cached_audio_bytes: int) -> None:
        self._pack, self._room = pack, cached_audio_bytes
        self._cache: OrderedDict[tuple[str, str], Document] = OrderedDict()

    def read(self, entry: Entry) -> Document:
        where = (entry.shard, entry.key)
        if where not in self._cache:
            self._cache[where] = self._pack.read(*where)
            self._room -= _audio_bytes(self._cache[where])
            while self._room < 0 and len(self._cache) > 1:
                self._room += _audio_bytes(self._cache.popitem(last=False)[1])
        self._cache.move_to_end(where)
        return self._cache[where]


class StageData:
    """The examples of one stage, whose tasks the split serves (``plan.open_inputs`` checks it).

    Iterating is ``next_step``; ``load_state_dict`` goes to any step at once.
    """

    def __init__(self, split: Split, reader: DocumentReader, maker: ExampleMaker, recipe: TrainingRecipe, stage: Stage) -> None:
        self._split, self._reader, self._maker, self._recipe, self._stage = split, reader, maker, recipe, stage
        self._stage_seed = zlib.crc32(stage.name.encode())
        self._pattern = task_pattern({task: given.share for task, given in stage.tasks.items()})
        documents = split.entries[: split.num_documents]
        self._texts = [turn.text_ids for entry in documents for turn in entry.turns if turn.text_ids]
        self._orders: dict[tuple[Task, int], np.ndarray] = {}
        self.step = 0

    def next_step(self) -> list[Example]:
        """The examples of the current step; moves on to the next."""
        examples = self.examples(self.step)
        self.step += 1
        return examples

    def examples(self, step: int) -> list[Example]:
        """The ``batch_documents`` examples of a step (from 0)."""
        size = self._stage.batch_documents if isinstance(self._stage, CtcStage) else self._stage.sequences_per_step
        return [self._example(slot) for slot in range(step * size, (step + 1) * size)]

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self._stage.name, "seed": self._recipe.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises MismatchError when the state is another stage's or seed's."""
        own = self.state_dict()
        if (state["stage"], state["seed"]) != (own["stage"], own["seed"]):
            raise MismatchError(f"data order of {state} cannot go on as {own}; resume with the recipe that began the run")
        self.step = int(state["step"])

    def _example(self, slot: int) -> Example:
        task, count = self._task(slot)
        entry = self._entry(task, count)
        if task is Task.REPEAT:
            return self._repeat(entry, self._rng("stretch", slot))
        return self._maker.make(task, entry, None if task in WITHOUT_READING else self._reader.read(entry))

    def _repeat(self, entry: Entry, rng: np.random.Generator) -> Example:
        recipe = self._recipe.repeat
        ids = recombine(self._texts, recipe, rng) if rng.random() < recipe.recombined_share else entry.turns[0].text_ids
        stretch = rng.uniform(1.0, recipe.max_patches_per_token)
        room = self._recipe.longest_sequence - len(ids) - 3
        return self._maker.repeat(entry, ids, max(len(ids), min(room, round(stretch * len(ids)))), rng)

    def _task(self, slot: int) -> tuple[Task, int]:
        """The slot's task, and how many slots before it had the same."""
        cycle, place = divmod(slot, len(self._pattern))
        task = self._pattern[place]
        return task, cycle * self._pattern.count(task) + self._pattern[:place].count(task)

    def _entry(self, task: Task, count: int) -> Entry:
        """The document of the ``count``-th example of a task: every epoch is a new permutation of all that serve it."""
        eligible = self._split.eligible[task]
        epoch, place = divmod(count, len(eligible))
        if (task, epoch) not in self._orders:
            self._orders = {
                known: order for known, order in self._orders.items() if known[0] is not task or known[1] == epoch - 1
            }
            self._orders[task, epoch] = self._rng(f"order {task.value}", epoch).permutation(len(eligible))
        return self._split.entries[eligible[int(self._orders[task, epoch][place])]]

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        """A stream for each purpose and number; two uses under one purpose would draw the same numbers."""
        return np.random.default_rng([self._recipe.seed, self._stage_seed, zlib.crc32(purpose.encode()), number])


def task_pattern(shares: dict[Task, float]) -> tuple[Task, ...]:
    """Tasks of one cycle of slots, in the given shares and spread evenly: at each slot the task furthest behind its share."""
    total = sum(shares.values())
    if len(shares) == 1:
        return tuple(shares)
    given = dict.fromkeys(shares, 0)
    pattern = []
    for slot in range(1, CYCLE + 1):
        task = max(shares, key=lambda task: slot * shares[task] / total - given[task])
        given[task] += 1
        pattern.append(task)
    return tuple(pattern)


def collate(examples: Sequence[Example], num_mels: int, pad_id: int, device: torch.device) -> Batch:
    """One padded batch. Padding has no weight, and causal attention keeps it from being seen."""
    longest = max(len(example.ids) for example in examples)

    def padded(name: str, fill: int) -> torch.Tensor:
        rows = [np.pad(getattr(example, name), (0, longest - len(example.ids)), constant_values=fill) for example in examples]
        return torch.from_numpy(np.stack(rows)).to(device)

    heard = [audio for example in examples for audio in example.audio]
    mels = [log_mel(torch.from_numpy(audio), num_mels) for audio in heard]
    return Batch(
        keys=tuple(example.document_id for example in examples),
        ids_BT=padded("ids", pad_id),
        lengths_B=torch.tensor([len(example.ids) for example in examples], device=device),
        kinds_BT=padded("kinds", TokenKind.SPECIAL).long(),
        weights_BT=padded("weights", 0),
        heard_BT=padded("is_heard", 0),
        mels_ACM=torch.stack([_to_length(mel, max(m.shape[1] for m in mels)) for mel in mels]).to(device) if mels else None,
        num_valid_A=torch.tensor([num_valid_frames(mel.shape[1]) for mel in mels], device=device) if mels else None,
        num_patches_A=torch.tensor([num_patches(len(audio)) for audio in heard], device=device) if mels else None,
    )


def _to_length(mel_CM: torch.Tensor, frames: int) -> torch.Tensor:
    return torch.nn.functional.pad(mel_CM, (0, frames - mel_CM.shape[1]))


def _audio_bytes(document: Document) -> int:
    return sum(int(turn.audio.nbytes) for turn in document.turns if turn.audio is not None)
