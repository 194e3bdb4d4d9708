# ruff: noqa: N815 (fields that hold tensors carry shape suffixes too)
"""The two losses: next-token prediction over the joint vocabulary, and CTC over the encoder's frames.

Both return sums, never means: the trainer divides by the weight of all targets of the whole step, so that splitting a
step into micro-batches changes nothing. Shapes: as in ``batches``; K token kinds, V rows, D width, F encoder frames,
E encoder width, N pieces whose tag is known, X classes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from tokenization.stretches import TokenKind
from training.attention import is_narrow_cuda, varlen_kernel
from training.batches import Batch, CtcBatch, HeardBatch, HeardPieces
from training.feature_cache import Slot
from training.head import weighted_loss
from training.lengths import num_encoder_frames, num_valid_frames
from training.model import StepAudio2
from training.tags import UNKNOWN

if TYPE_CHECKING:
    from training.encoder_recipe import TagHead

NUM_KINDS = len(TokenKind)


@dataclass(frozen=True)
class Sums:
    """What a micro-batch adds to a step. Kinds are those of tokens, and behind them the stage's tags."""

    loss: torch.Tensor  # scalar with gradient: sum of weighted losses
    loss_K: torch.Tensor  # sum of unweighted losses by kind
    entropy_K: torch.Tensor  # sum of the predictions' entropies by kind; zeros for CTC
    correct_K: torch.Tensor  # targets whose likeliest token is right, by kind
    count_K: torch.Tensor  # targets by kind


def token_sums(model: StepAudio2, batch: Batch, masked: slice | None = None) -> Sums:
    """Cross-entropy where the loss has weight; last MLP and head run at these positions only, without the ids that are masked."""
    features_PD = features(model, batch.heard, batch.features_P)
    # The state at t - 1 predicts position t; the first position of a document has no weight.
    places_N = batch.targets_N - 1
    hidden_ND = model.hidden(batch.ids_BT, batch.positions_BT, batch.spans, batch.heard_BT, features_PD, places_N=places_N)
    ids_N, kinds_N, weights_N = (x.flatten()[batch.targets_N] for x in (batch.ids_BT, batch.kinds_BT, batch.weights_BT))
    loss, (nll_N, entropy_N, is_right_N) = weighted_loss(hidden_ND, model.lm_head.weight, ids_N, weights_N, masked=masked)
    return Sums(loss, *_by_kind(kinds_N, nll_N, entropy_N, is_right_N.float()))


def features(model: StepAudio2, heard: Sequence[HeardBatch | HeardPieces], places_P: torch.Tensor) -> torch.Tensor | None:
    """Adaptor features ``[P, D]``, put in order by their places; None where nothing is heard."""
    if not heard:
        return None
    found = zip(_all_frames(model, heard), heard, strict=True)
    return torch.cat([model.adapt(frames_AFE, batch.num_patches_A) for frames_AFE, batch in found])[places_P]


def _all_frames(model: StepAudio2, heard: Sequence[HeardBatch | HeardPieces]) -> list[torch.Tensor]:
    """``frames`` of each; on CUDA, where flash attention takes ragged pieces, one pass of the encoder's blocks for all."""
    batches = [batch for batch in heard if isinstance(batch, HeardBatch)]
    kernel = varlen_kernel(is_causal=False)
    if kernel is None or len(batches) < len(heard) or not is_narrow_cuda(batches[0].mels_ACM):
        return [frames(model, batch) for batch in heard]
    return model.encoder.all_groups([(batch.mels_ACM, batch.num_valid_A) for batch in batches], kernel)


def frames(model: StepAudio2, heard: HeardBatch | HeardPieces) -> torch.Tensor:
    """Encoder frames ``[A, F, E]``, zero behind each piece's end. Slots that are empty are filled."""
    if isinstance(heard, HeardBatch):
        return model.encode(heard.mels_ACM, heard.num_valid_A)
    device = heard.num_patches_A.device
    return pad_sequence(
        [_piece_frames(model, slot, mel_CM).to(device) for slot, mel_CM in zip(heard.slots, heard.mels_A, strict=True)],
        batch_first=True,
    )


@torch.no_grad()
def _piece_frames(model: StepAudio2, slot: Slot, mel_CM: torch.Tensor | None) -> torch.Tensor:
    """Frames ``[F, E]`` of a piece by itself; ``mel_CM`` is there where the slot is empty."""
    if slot.frames_FE is None:
        assert mel_CM is not None
        num_valid = num_valid_frames(mel_CM.shape[1])
        found_1FE = model.encode(mel_CM[None], torch.tensor([num_valid], device=mel_CM.device))
        slot.frames_FE = found_1FE[0, : num_encoder_frames(num_valid)].cpu()
    return slot.frames_FE


def ctc_sums(model: StepAudio2, batch: CtcBatch, tags: Mapping[str, TagHead] = MappingProxyType({})) -> Sums:
    """CTC over the labels (Graves et al. 2006): minus log likelihood of each text, in nats; and cross-entropy of the tags that are known.

    A text counts as right label for label when best-path decoding gives exactly it, otherwise not at all.
    """
    heard = batch.heard
    frames_AFE = model.encode(heard.mels_ACM, heard.num_valid_A)
    log_probs_AFL = model.ctc_head(frames_AFE).float().log_softmax(-1)
    blank = log_probs_AFL.shape[-1] - 1
    frames_A = (heard.num_valid_A + 1) // 2 // 2
    losses_A = F.ctc_loss(
        log_probs_AFL.transpose(0, 1), batch.labels_AL, frames_A, batch.num_labels_A, blank=blank, reduction="none"
    )
    best_AF = log_probs_AFL.detach().argmax(-1)
    right_A = torch.zeros_like(losses_A)
    for place, (best, frames) in enumerate(zip(best_AF, frames_A.tolist(), strict=True)):
        decoded = torch.unique_consecutive(best[:frames])
        label = batch.labels_AL[place, : batch.num_labels_A[place]]
        right_A[place] = float(torch.equal(decoded[decoded != blank], label)) * len(label)
    loss_K, entropy_K, correct_K, count_K = torch.zeros(4, NUM_KINDS + len(tags), device=losses_A.device)
    loss_K[TokenKind.TEXT], correct_K[TokenKind.TEXT] = losses_A.detach().sum(), right_A.sum()
    count_K[TokenKind.TEXT] = batch.num_labels_A.sum()
    loss = (losses_A * batch.weights_A).sum()
    for place, (name, head) in enumerate(tags.items()):
        known_A = batch.tags_GA[place] != UNKNOWN
        tags_N, logits_NX = batch.tags_GA[place][known_A], model.tag_logits(frames_AFE, frames_A, name)[known_A]
        log_probs_NX = logits_NX.float().log_softmax(-1)
        tag_loss = F.nll_loss(log_probs_NX, tags_N, reduction="sum")
        loss = loss + head.weight * tag_loss
        kind = NUM_KINDS + place
        loss_K[kind], count_K[kind] = tag_loss.detach(), len(tags_N)
        entropy_K[kind] = -(log_probs_NX.exp() * log_probs_NX).detach().sum()
        correct_K[kind] = (log_probs_NX.detach().argmax(-1) == tags_N).sum()
    return Sums(loss, loss_K, entropy_K, correct_K, count_K)


def _by_kind(kinds_N: torch.Tensor, *values_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Sums of the values by kind, then the counts."""
    one_hot_NK = F.one_hot(kinds_N, NUM_KINDS).float()
    return (*(value_N @ one_hot_NK for value_N in values_N), one_hot_NK.sum(0))
