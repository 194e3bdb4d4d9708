"""Does the model hear? ASR loss with the matching audio, and with the audio of a document that says something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from manifests.errors import RequestError
from training.batches import collate, on_device
from training.data import DocumentReader
from training.documents import Split
from training.entries import Entry
from training.examples import Example, ExampleMaker
from training.model import StepAudio2
from training.objectives import token_sums
from training.recipe import Task

BATCH_DOCUMENTS = 16


@dataclass(frozen=True)
class SwapResult:
    """Mean ASR loss in nats a target (text and stop), with own and with other audio."""

    split: str
    num_documents: int
    align_loss: float
    swapped_loss: float

    @property
    def swap_rise(self) -> float:
        """Relative: 0.2 means that the loss rises by 20 % when the audio is another's."""
        return self.swapped_loss / self.align_loss - 1.0


def measure_swap(
    model: StepAudio2,
    split: Split,
    reader: DocumentReader,
    maker: ExampleMaker,
    max_documents: int,
    masked: slice | None,
    device: torch.device,
) -> SwapResult:
    """Matched and swapped loss over the split's first ``max_documents`` ASR documents, without the ids that are masked.

    The audio of the swapped side is another document's, cut or repeated to the length of the document's own: the number
    of patches alone tells clips apart, and a model that counts them must not pass for one that listens. Raises as
    ``swap_pairs``.
    """
    pairs = swap_pairs(split, max_documents)
    own = [asr_example(maker, reader, entry, entry) for entry, _ in pairs]
    other = [asr_example(maker, reader, entry, donor) for entry, donor in pairs]
    losses = [mean_loss(model, examples, maker, masked, device) for examples in (own, other)]
    return SwapResult(split.name, len(pairs), *losses)


def swap_report(stage: str, found: Sequence[SwapResult]) -> dict[str, Any]:
    """``evaluation.json``: the first split's figures on top, every split's below."""
    rows = {r.split: {**asdict(r), "swap_rise": r.swap_rise} for r in found}
    top = rows[found[0].split]
    return {
        "stage": stage,
        "align_loss": top["align_loss"],
        "swapped_loss": top["swapped_loss"],
        "swap_rise": top["swap_rise"],
        "splits": rows,
    }


def swap_pairs(split: Split, max_documents: int) -> list[tuple[Entry, Entry]]:
    """The split's first ``max_documents`` ASR documents, each with the one whose audio it is given.

    Raises RequestError when there is none, or when more than half of them say the same.
    """
    entries = [split.entries[place] for place in split.eligible[Task.ASR][:max_documents]]
    donors = other_texts([entry.text for entry in entries])
    if not donors:
        raise RequestError(
            f"split {split.name!r}: audio cannot be swapped between its first {len(entries)} ASR documents; at most half of them may "
            "have the same text, and there must be two: pack more, or take the split out of data.swap_splits"
        )
    return [(entry, entries[donor]) for entry, donor in zip(entries, donors, strict=True)]


def other_texts(texts: Sequence[str]) -> list[int]:
    """For each place one whose text differs: a cyclic shift over the places sorted by text, by as much as the commonest
    text has places, so that none meets its own. Empty when one text has more than half of the places."""
    if not texts:
        return []
    order = sorted(range(len(texts)), key=lambda place: (texts[place], place))
    shift = max(texts.count(text) for text in set(texts))
    if 2 * shift > len(texts):
        return []
    donors = [0] * len(texts)
    for rank, place in enumerate(order):
        donors[place] = order[(rank + shift) % len(order)]
    return donors


def asr_example(maker: ExampleMaker, reader: DocumentReader, text_of: Entry, audio_of: Entry) -> Example:
    """One document's text behind the audio of another, cut or repeated to as many samples as the text's own audio has."""
    document = replace(reader.read(audio_of), key=text_of.key)
    (turn,) = document.turns
    if turn.audio is not None:
        resized = np.resize(turn.audio, text_of.turns[0].num_samples or 0)
        document = replace(document, turns=(replace(turn, audio=resized),))
    return maker.make(Task.ASR, text_of, document)


@torch.no_grad()
def mean_loss(
    model: StepAudio2, examples: Sequence[Example], maker: ExampleMaker, masked: slice | None, device: torch.device
) -> float:
    """In nats a target, over the examples one a row, without the ids that are masked."""
    loss, weight = 0.0, 0.0
    for start in range(0, len(examples), BATCH_DOCUMENTS):
        rows = [[example] for example in examples[start : start + BATCH_DOCUMENTS]]
        width = max(len(example.ids) for (example,) in rows)
        batch = collate(rows, width, model.config.encoder.num_mels, maker.vocabulary.pad)
        loss += float(token_sums(model, on_device(batch, device), masked).loss)
        weight += batch.weight
    return loss / weight
