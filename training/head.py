"""The output head with its loss, a chunk of tokens at a time: logits of all tokens never stand in memory together.

Shapes: N tokens, C tokens of a chunk, D width, V vocabulary rows. At 16,384 tokens and 158,720 rows the logits alone would be
10 GB in float32, and automatic differentiation keeps two or three such tables. ``head_losses`` computes each chunk's logits again in
the backward pass, which costs a third more of the head's arithmetic; ``weighted_loss`` need not, and gives one sum only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import once_differentiable

IGNORED = -100  # a target that has no loss
# Large enough to keep a GPU busy; small enough for a CPU's caches.
TOKENS_AT_ONCE, CPU_TOKENS_AT_ONCE = 1024, 256

Losses = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def head_losses(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    masked: slice | torch.Tensor | None = None,
    tokens_at_once: int | None = None,
) -> Losses:
    """(negative log-likelihood, entropy, whether no id is likelier than the target) of each token: wide, wide, bool ``[N]``.

    Wide is float32, or the hidden states' type where that is wider. The first two are in nats and differentiable in
    ``hidden_ND`` and ``weight_VD``; what they are weighted by and reduced to is the caller's. ``masked`` (a slice of the
    ids, or bool ``[V]``) leaves ids out of the softmax: they have no probability, get no gradient, and a target among
    them has an infinite loss. Where the target is ``IGNORED`` all three are zero and no gradient flows.
    """
    weight_VD, masked_V = _without(weight_VD, masked)
    size = tokens_at_once or (TOKENS_AT_ONCE if hidden_ND.is_cuda else CPU_TOKENS_AT_ONCE)
    with _cast(hidden_ND, weight_VD) as (hidden_ND, weight_VD):
        nll_N, entropy_N, is_right_N = _HeadLosses.apply(hidden_ND, weight_VD, targets_N, masked_V, size)
    return nll_N, entropy_N, is_right_N


def weighted_loss(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    *,
    masked: slice | torch.Tensor | None = None,
    tokens_at_once: int | None = None,
) -> tuple[torch.Tensor, Losses]:
    """(sum of ``weights_N`` times the negative log-likelihoods, wide scalar with gradient; ``head_losses`` without gradient).

    Where the weights are known beforehand, gradients are made while a chunk's logits are there, and none is computed again
    (as in Liger Kernel, arXiv 2410.10989).
    """
    if not torch.is_grad_enabled():
        hidden_ND, weight_VD = hidden_ND.detach(), weight_VD.detach()
    weight_VD, masked_V = _without(weight_VD, masked)
    size = tokens_at_once or (TOKENS_AT_ONCE if hidden_ND.is_cuda else CPU_TOKENS_AT_ONCE)
    with _cast(hidden_ND, weight_VD) as (hidden_ND, weight_VD):
        loss, *losses = _WeightedLoss.apply(hidden_ND, weight_VD, targets_N, weights_N, masked_V, size)
    return loss, tuple(losses)


class _WeightedLoss(torch.autograd.Function):
    """With q the weight of a token, the rest as in ``_HeadLosses``: d loss / dz = q (p - onehot(y))."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor,
        masked_V: torch.Tensor | None,
        tokens_at_once: int,
    ) -> tuple[torch.Tensor, ...]:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        nll_N, entropy_N = (hidden_ND.new_zeros(len(targets_N), dtype=wide) for _ in range(2))
        is_right_N = torch.zeros_like(targets_N, dtype=torch.bool)
        hidden_grad_ND = torch.zeros_like(hidden_ND) if needs_hidden else None
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        is_ignored_N = targets_N == IGNORED
        weights_N = weights_N.to(wide).masked_fill(is_ignored_N, 0.0)
        for chunk in _chunks(len(targets_N), tokens_at_once):
            logits_CV = _logits(hidden_ND[chunk], weight_VD, masked_V)
            # A softmax by hand, in the fewest passes over the chunk: torch's own would take the exponentials twice.
            most_C1 = logits_CV.amax(-1, keepdim=True)
            found_C1 = _at_targets(logits_CV, targets_N[chunk], masked_V)[:, None]
            is_right_N[chunk] = (found_C1 == most_C1)[:, 0]
            probs_CV = logits_CV.sub_(most_C1).exp()
            total_C1 = probs_CV.sum(-1, keepdim=True)
            nll_N[chunk] = (total_C1.log() - (found_C1 - most_C1))[:, 0]
            entropy_N[chunk] = (total_C1.log() - logits_CV.mul_(probs_CV).sum(-1, keepdim=True) / total_C1)[:, 0]
            if hidden_grad_ND is None and weight_grad_VD is None:
                continue
            places_C1 = targets_N[chunk, None].clamp(0, len(weight_VD) - 1)
            weights_C1 = weights_N[chunk, None]
            grad_CV = probs_CV.mul_(weights_C1 / total_C1).scatter_add_(1, places_C1, -weights_C1).to(hidden_ND.dtype)
            if hidden_grad_ND is not None:
                hidden_grad_ND[chunk] = grad_CV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += grad_CV.T @ hidden_ND[chunk]
        nll_N.masked_fill_(is_ignored_N, 0.0)
        entropy_N.masked_fill_(is_ignored_N, 0.0)
        is_right_N.masked_fill_(is_ignored_N, False)
        ctx.save_for_backward(hidden_grad_ND, weight_grad_VD)
        ctx.weight_dtype = weight_VD.dtype
        ctx.mark_non_differentiable(nll_N, entropy_N, is_right_N)
        ctx.set_materialize_grads(False)
        return (nll_N * weights_N).sum(), nll_N, entropy_N, is_right_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor, *_: None) -> tuple[Any, ...]:
        hidden_grad_ND, weight_grad_VD = ctx.saved_tensors
        hidden = None if hidden_grad_ND is None else hidden_grad_ND * grad.to(hidden_grad_ND.dtype)
        weight = None if weight_grad_VD is None else (weight_grad_VD * grad).to(ctx.weight_dtype)
        return hidden, weight, None, None, None, None


class _HeadLosses(torch.autograd.Function):
    """With p the softmax of logits z, a target y and the entropy H = -sum p log p:

    d nll / dz = p - onehot(y)        d H / dz = -p (log p + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_N: torch.Tensor,
        masked_V: torch.Tensor | None,
        tokens_at_once: int,
    ) -> Losses:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        nll_N, entropy_N, norm_N = (hidden_ND.new_zeros(len(targets_N), dtype=wide) for _ in range(3))
        is_right_N = torch.zeros_like(targets_N, dtype=torch.bool)
        for chunk in _chunks(len(targets_N), tokens_at_once):
            logits_CV = _logits(hidden_ND[chunk], weight_VD, masked_V)
            norm_N[chunk] = logits_CV.logsumexp(-1)
            nll_N[chunk] = norm_N[chunk] - _at_targets(logits_CV, targets_N[chunk], masked_V)
            is_right_N[chunk] = logits_CV.argmax(-1) == targets_N[chunk]
            probs_CV = (logits_CV - norm_N[chunk, None]).exp_()
            entropy_N[chunk] = norm_N[chunk] - probs_CV.mul_(logits_CV).sum(-1)
        is_ignored_N = targets_N == IGNORED
        nll_N.masked_fill_(is_ignored_N, 0.0)
        entropy_N.masked_fill_(is_ignored_N, 0.0)
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, masked_V, norm_N, entropy_N)
        ctx.tokens_at_once = tokens_at_once
        ctx.mark_non_differentiable(is_right_N)
        ctx.set_materialize_grads(False)
        return nll_N, entropy_N, is_right_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, nll_grad_N: torch.Tensor | None, entropy_grad_N: torch.Tensor | None, _: None) -> tuple[Any, ...]:
        hidden_ND, weight_VD, targets_N, masked_V, norm_N, entropy_N = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        hidden_grad_ND = torch.zeros_like(hidden_ND) if needs_hidden else None
        # Sums over many chunks in a narrow type would lose what single tokens add.
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=norm_N.dtype) if needs_weight else None
        is_ignored_N = targets_N == IGNORED
        for chunk in _chunks(len(targets_N), ctx.tokens_at_once):
            is_ignored_C1 = is_ignored_N[chunk, None]
            log_probs_CV = _logits(hidden_ND[chunk], weight_VD, masked_V).sub_(norm_N[chunk, None])
            probs_CV = log_probs_CV.exp()
            grad_CV = torch.zeros_like(probs_CV) if nll_grad_N is None else probs_CV * nll_grad_N[chunk, None]
            if nll_grad_N is not None:
                places_C1 = targets_N[chunk, None].clamp(0, len(weight_VD) - 1)
                grad_CV.scatter_add_(1, places_C1, -nll_grad_N[chunk, None])
            if entropy_grad_N is not None:
                slope_CV = log_probs_CV.add_(entropy_N[chunk, None]).mul_(probs_CV)
                grad_CV.sub_(slope_CV.mul_(entropy_grad_N[chunk, None]))
            grad_CV = grad_CV.masked_fill_(is_ignored_C1, 0.0).to(hidden_ND.dtype)
            if hidden_grad_ND is not None:
                hidden_grad_ND[chunk] = grad_CV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += grad_CV.T @ hidden_ND[chunk]
        return hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype), None, None, None


@contextmanager
def _cast(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The tensors in the type that autocast multiplies in, and no autocast within: it would cast the head anew for every chunk."""
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):
        tensors = tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
    with torch.autocast(device, enabled=False):
        yield tensors


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _without(weight_VD: torch.Tensor, masked: slice | torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The rows that have to be multiplied, and bool ``[V]`` of those among them that are masked."""
    if not isinstance(masked, slice):
        return weight_VD, masked
    start, stop, _ = masked.indices(len(weight_VD))
    if stop == len(weight_VD):  # nothing lies behind the masked ids, so their rows need not be multiplied at all
        return weight_VD[:start], None
    masked_V = torch.zeros(len(weight_VD), dtype=torch.bool, device=weight_VD.device)
    masked_V[start:stop] = True
    return weight_VD, masked_V


def _logits(hidden_CD: torch.Tensor, weight_VD: torch.Tensor, masked_V: torch.Tensor | None) -> torch.Tensor:
    """Wide ``[C, V]``, new. A masked id has the least number and not minus infinity, which times no probability is NaN."""
    logits_CV = hidden_CD @ weight_VD.T
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    return logits_CV if masked_V is None else logits_CV.masked_fill_(masked_V, torch.finfo(logits_CV.dtype).min)


def _at_targets(logits_CV: torch.Tensor, targets_C: torch.Tensor, masked_V: torch.Tensor | None) -> torch.Tensor:
    """The targets' logits ``[C]``: minus infinity for one that is masked or behind the rows, any for one that is ignored."""
    places_C = targets_C.clamp(0, logits_CV.shape[1] - 1)
    is_out_C = targets_C != places_C
    if masked_V is not None:
        is_out_C = is_out_C | masked_V[places_C]
    return logits_CV.gather(1, places_C[:, None])[:, 0].masked_fill(is_out_C, -torch.inf)
