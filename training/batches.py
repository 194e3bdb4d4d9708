# ruff: noqa: N815 (fields that hold tensors carry shape suffixes too)
"""Examples to tensors: rows of packed documents for the decoder, batches of audio of like lengths for the encoder.

Shapes: B rows, T positions, N positions with loss, P patches, A pieces of audio, C mel bands, M mel frames, L labels,
G tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from tokenization.stretches import TokenKind
from training.attention import DocumentSpans
from training.feature_cache import FeatureCache, Slot
from training.features import HOP_SAMPLES, log_mel
from training.lengths import num_adaptor_frames, num_encoder_frames, num_patches, num_valid_frames
from training.tags import UNKNOWN

if TYPE_CHECKING:
    from training.examples import Example

LEAST_FILLED = 0.9  # of an encoder batch's frames, what audio has to fill; the rest is padding
MOST_FRAMES = 64 * 2502  # of an encoder batch: 64 pieces of 25 s


@dataclass(frozen=True)
class HeardBatch:
    """Pieces of audio of like lengths, padded to the longest."""

    mels_ACM: torch.Tensor  # float32
    num_valid_A: torch.Tensor  # int64, mel frames that count
    num_patches_A: torch.Tensor  # int64


@dataclass(frozen=True)
class HeardPieces:
    """Pieces of audio of like lengths that are encoded one by one, or were when the batch was made."""

    slots: tuple[Slot, ...]
    mels_A: tuple[torch.Tensor | None, ...]  # float32 [C, M]; None where the slot was filled already
    num_patches_A: torch.Tensor  # int64


@dataclass(frozen=True)
class Batch:
    """Rows of documents, one behind the other, with what is heard in them."""

    document_ids: tuple[str, ...]  # row by row
    ids_BT: torch.Tensor  # int64
    kinds_BT: torch.Tensor  # int64 of TokenKind
    weights_BT: torch.Tensor  # float32, 0 = no loss
    positions_BT: torch.Tensor  # int64, from 0 in every document
    heard_BT: torch.Tensor  # bool
    spans: DocumentSpans
    weight: float  # the sum of all weights
    targets_N: torch.Tensor  # int64: places in the flattened rows that have loss; the state before each predicts it
    heard: tuple[HeardBatch | HeardPieces, ...]
    features_P: (
        torch.Tensor
    )  # int64: of the features of ``heard``, one behind the other, which stands at the p-th patch of the rows

    @property
    def num_tokens(self) -> int:
        """Positions that hold documents."""
        return sum(self.spans.lengths)

    @property
    def padding(self) -> float:
        """Share of the positions that hold none."""
        return 1.0 - self.num_tokens / self.ids_BT.numel()


@dataclass(frozen=True)
class HeardExample:
    """An example of one piece of audio as the encoder hears it."""

    example: Example
    mel_CM: torch.Tensor  # float32
    tags: tuple[int, ...] = ()  # for each of the stage's tags: number of the class, or UNKNOWN


@dataclass(frozen=True)
class CtcBatch:
    """Audio of like lengths, and the labels that its frames are to give."""

    document_ids: tuple[str, ...]
    labels_AL: torch.Tensor  # int64, padded
    num_labels_A: torch.Tensor  # int64
    weights_A: torch.Tensor  # float32, of a label
    tags_GA: torch.Tensor  # int64, for each of the stage's tags: number of the class, or UNKNOWN
    weight: float  # the sum over all labels, and tags that are known
    heard: HeardBatch
    tag_weights: tuple[float, ...]  # of one of each tag

    @property
    def num_tokens(self) -> int:
        """Labels."""
        return int(self.num_labels_A.sum())

    @property
    def padding(self) -> float:
        """Share of the mel frames that hold no audio."""
        frames_AM = self.heard.mels_ACM[:, 0]
        return 1.0 - int(self.heard.num_valid_A.sum()) / frames_AM.numel()


AnyBatch = TypeVar("AnyBatch", bound=Batch | CtcBatch | HeardBatch | HeardPieces)


def on_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """The batch with all its tensors there."""

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, HeardBatch | HeardPieces):
            return on_device(value, device)
        return tuple(moved(part) for part in value) if isinstance(value, tuple) else value

    return replace(batch, **{field.name: moved(getattr(batch, field.name)) for field in fields(batch)})


def collate(
    rows: Sequence[Sequence[Example]], width: int, num_mels: int, pad_id: int, cache: FeatureCache | None = None
) -> Batch:
    """Rows of ``width`` positions, each filled from its start on. Padding has no weight and belongs to no document.

    With a cache, pieces of audio come one by one, with their slots of it.
    """

    def laid(name: str, fill: int, dtype: Any) -> torch.Tensor:
        out = np.full((len(rows), width), fill, dtype=dtype)
        for place, row in enumerate(rows):
            start = 0
            for example in row:
                values = getattr(example, name)
                out[place, start : start + len(values)] = values
                start += len(values)
        return torch.from_numpy(out)

    weights_BT = laid("weights", 0, np.float32)
    heard, features_P = hear([audio for row in rows for example in row for audio in example.audio], num_mels, cache)
    return Batch(
        document_ids=tuple(example.document_id for row in rows for example in row),
        ids_BT=laid("ids", pad_id, np.int64),
        kinds_BT=laid("kinds", TokenKind.SPECIAL, np.int64),
        weights_BT=weights_BT,
        positions_BT=laid("positions", 0, np.int64),
        heard_BT=laid("is_heard", 0, np.bool_),
        spans=DocumentSpans(tuple(tuple(len(example.ids) for example in row) for row in rows)),
        weight=float(weights_BT.sum(dtype=torch.float64)),
        targets_N=weights_BT.flatten().nonzero().flatten(),
        heard=heard,
        features_P=features_P,
    )


def collate_ctc(heard: Sequence[HeardExample], tag_weights: Sequence[float] = ()) -> list[CtcBatch]:
    """Batches by the length of the audio, the longest first. ``tag_weights``: of each of the stage's tags in the loss."""
    batches = []
    for places in by_length([len(one.example.audio[0]) for one in heard]):
        chosen = [heard[place].example for place in places]
        tags_GA = torch.tensor([heard[place].tags for place in places], dtype=torch.int64).T
        num_labels_A = torch.tensor([len(example.ids) for example in chosen])
        weights_A = torch.tensor([float(example.weights[0]) for example in chosen])
        batches.append(
            CtcBatch(
                document_ids=tuple(example.document_id for example in chosen),
                labels_AL=torch.nn.utils.rnn.pad_sequence([torch.from_numpy(e.ids) for e in chosen], batch_first=True),
                num_labels_A=num_labels_A,
                weights_A=weights_A,
                tags_GA=tags_GA,
                weight=float((weights_A.double() * num_labels_A).sum()) + tag_weight(tags_GA, tag_weights),
                heard=_heard([heard[place].mel_CM for place in places]),
                tag_weights=tuple(tag_weights),
            )
        )
    return batches


def tag_weight(tags_GA: torch.Tensor, tag_weights: Sequence[float]) -> float:
    """Weight in the loss of all tags that are known, where one of each weighs so much."""
    return sum(weight * int((tags_A != UNKNOWN).sum()) for weight, tags_A in zip(tag_weights, tags_GA, strict=True))


def hear(
    pieces: Sequence[np.ndarray], num_mels: int, cache: FeatureCache | None = None
) -> tuple[tuple[HeardBatch | HeardPieces, ...], torch.Tensor]:
    """Pieces of audio, float32 ``[S]`` each, in batches by length, and for each of their patches, in the order of the
    pieces, the place of its feature among those that the batches give one after the other (int64 ``[P]``)."""
    groups = by_length([len(piece) for piece in pieces])
    counts, start, places = [num_patches(len(piece)) for piece in pieces], 0, [torch.zeros(0, dtype=torch.int64)] * len(pieces)
    for place in (place for group in groups for place in group):
        places[place] = torch.arange(start, start + counts[place])
        start += counts[place]
    features_P = torch.cat(places) if places else torch.zeros(0, dtype=torch.int64)
    chosen = [[pieces[place] for place in group] for group in groups]
    if cache is None:
        return tuple(_heard([log_mel(torch.from_numpy(piece), num_mels) for piece in group]) for group in chosen), features_P
    return tuple(_heard_alone(group, num_mels, cache) for group in chosen), features_P


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Places of items, the longest first, in groups that padding to their longest leaves at least LEAST_FILLED."""
    groups: list[list[int]] = []
    filled = longest = 0
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        padded = (len(groups[-1]) + 1) * longest if groups else 0
        if not groups or filled + lengths[place] < LEAST_FILLED * padded or padded > MOST_FRAMES * HOP_SAMPLES:
            groups.append([])
            filled, longest = 0, lengths[place]
        groups[-1].append(place)
        filled += lengths[place]
    return groups


def _heard(mels: Sequence[torch.Tensor]) -> HeardBatch:
    longest = max(mel.shape[1] for mel in mels)
    num_valid = [num_valid_frames(mel.shape[1]) for mel in mels]
    return HeardBatch(
        mels_ACM=torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels]),
        num_valid_A=torch.tensor(num_valid),
        num_patches_A=torch.tensor([num_adaptor_frames(num_encoder_frames(num)) for num in num_valid]),
    )


def _heard_alone(pieces: Sequence[np.ndarray], num_mels: int, cache: FeatureCache) -> HeardPieces:
    slots = tuple(cache.slot(piece) for piece in pieces)
    return HeardPieces(
        slots=slots,
        mels_A=tuple(
            log_mel(torch.from_numpy(piece), num_mels) if slot.frames_FE is None else None
            for slot, piece in zip(slots, pieces, strict=True)
        ),
        num_patches_A=torch.tensor([num_patches(len(piece)) for piece in pieces]),
    )
