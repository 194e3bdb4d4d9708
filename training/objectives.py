# ruff: noqa: N815 (fields that hold tensors carry shape suffixes too)
"""The two losses: next-token prediction over the joint vocabulary, and CTC over the encoder's frames.

Both return sums, never means: the trainer divides by the number of weighted targets of the whole step, so that
splitting a step into micro-batches changes nothing. Shapes: as in ``data``; N targets, K token kinds, V rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tokenization.stretches import TokenKind
from training.attention import DocumentSpans
from training.data import Batch
from training.model import StepAudio2

NUM_KINDS = len(TokenKind)


@dataclass(frozen=True)
class Sums:
    """What a micro-batch adds to a step."""

    loss: torch.Tensor  # scalar with gradient: sum of weighted losses
    loss_K: torch.Tensor  # sum of unweighted losses by kind
    correct_K: torch.Tensor  # targets whose likeliest token is right, by kind
    count_K: torch.Tensor  # targets by kind


def token_sums(model: StepAudio2, batch: Batch) -> Sums:
    """Cross-entropy where the loss has weight; the head runs at these positions only."""
    features = None
    if batch.mels_ACM is not None and batch.num_valid_A is not None and batch.num_patches_A is not None:
        features = model.hear(batch.mels_ACM, batch.num_valid_A, batch.num_patches_A)
    spans = DocumentSpans.one_a_row(batch.lengths_B.tolist())
    positions_BT = spans.positions(batch.ids_BT.shape[1]).to(batch.ids_BT.device)
    hidden_BTD = model.hidden(batch.ids_BT, positions_BT, spans, batch.heard_BT, features)
    # The state at t - 1 predicts position t; the first position of an example has nothing before it.
    predicted_BT = batch.weights_BT[:, 1:] > 0
    logits_NV = model.lm_head(hidden_BTD[:, :-1][predicted_BT])
    targets_N, kinds_N = batch.ids_BT[:, 1:][predicted_BT], batch.kinds_BT[:, 1:][predicted_BT]
    losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    right_N = (logits_NV.detach().argmax(-1) == targets_N).float()
    return Sums((losses_N * batch.weights_BT[:, 1:][predicted_BT]).sum(), *_by_kind(kinds_N, losses_N.detach(), right_N))


def ctc_sums(model: StepAudio2, batch: Batch) -> Sums:
    """CTC over the labels (Graves et al. 2006): minus log likelihood of each text, in nats.

    A text counts as right label for label when best-path decoding gives exactly it, otherwise not at all.
    """
    assert batch.mels_ACM is not None and batch.num_valid_A is not None  # noqa: PT018 (a ctc example always has audio)
    log_probs_AFL = model.ctc_logits(batch.mels_ACM, batch.num_valid_A).float().log_softmax(-1)
    blank = log_probs_AFL.shape[-1] - 1
    frames_A = (batch.num_valid_A + 1) // 2 // 2
    losses_A = F.ctc_loss(
        log_probs_AFL.transpose(0, 1), batch.ids_BT, frames_A, batch.lengths_B, blank=blank, reduction="none", zero_infinity=False
    )
    best_AF = log_probs_AFL.detach().argmax(-1)
    right_A = torch.zeros_like(losses_A)
    for place, (best, frames) in enumerate(zip(best_AF, frames_A.tolist(), strict=True)):
        decoded = torch.unique_consecutive(best[:frames])
        label = batch.ids_BT[place, : batch.lengths_B[place]]
        right_A[place] = float(torch.equal(decoded[decoded != blank], label)) * len(label)
    count_K = torch.zeros(NUM_KINDS, device=losses_A.device)
    loss_K, correct_K = count_K.clone(), count_K.clone()
    loss_K[TokenKind.TEXT], correct_K[TokenKind.TEXT] = losses_A.detach().sum(), right_A.sum()
    count_K[TokenKind.TEXT] = batch.lengths_B.sum()
    return Sums((losses_A * batch.weights_BT[:, 0]).sum(), loss_K, correct_K, count_K)


def _by_kind(kinds_N: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums of the values by kind, then the counts."""
    one_hot_NK = F.one_hot(kinds_N, NUM_KINDS).float()
    loss_K, correct_K = (value @ one_hot_NK for value in values)
    return loss_K, correct_K, one_hot_NK.sum(0)
