"""Does the model hear? ASR loss with the matching audio, and with the audio of a document that says something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from manifests.errors import RequestError
from training.data import DocumentReader, collate
from training.documents import Entry, Split
from training.examples import Example, ExampleMaker
from training.model import StepAudio2
from training.objectives import kind_weights, token_sums, weighted_targets
from training.recipe import LossWeights, Task

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
    model: StepAudio2, split: Split, reader: DocumentReader, maker: ExampleMaker, max_documents: int, device: torch.device
) -> SwapResult:
    """Matched and swapped loss over the split's first ``max_documents`` ASR documents.

    Audio goes in a fixed cycle to a document of another text. Raises RequestError where fewer than two texts differ.
    """
    entries = [split.entries[place] for place in split.eligible[Task.ASR][:max_documents]]
    donors = other_texts([entry.text for entry in entries])
    if not donors:
        raise RequestError(
            f"split {split.name!r} has {len(entries)} ASR documents and no two texts that differ; audio cannot be swapped: pack more"
        )
    own = [_example(maker, reader, entry, entry) for entry in entries]
    other = [_example(maker, reader, entry, entries[donor]) for entry, donor in zip(entries, donors, strict=True)]
    return SwapResult(split.name, len(entries), _mean_loss(model, own, maker, device), _mean_loss(model, other, maker, device))


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


def _example(maker: ExampleMaker, reader: DocumentReader, text_of: Entry, audio_of: Entry) -> Example:
    document = replace(reader.read(audio_of), key=text_of.key)
    return maker.of_document(Task.ASR, document, list(text_of.text_ids))


@torch.no_grad()
def _mean_loss(model: StepAudio2, examples: Sequence[Example], maker: ExampleMaker, device: torch.device) -> float:
    weights_K = kind_weights(LossWeights(), device)
    loss, count = 0.0, 0.0
    for start in range(0, len(examples), BATCH_DOCUMENTS):
        part = examples[start : start + BATCH_DOCUMENTS]
        batch = collate(part, model.config.encoder.num_mels, maker.vocabulary.pad, device)
        loss += float(token_sums(model, batch, weights_K).loss)
        count += float(weighted_targets(batch, weights_K))
    return loss / count
