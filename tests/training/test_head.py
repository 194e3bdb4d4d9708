from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training.head import IGNORED, head_losses, weighted_loss

WIDTH, ROWS = 8, 23


def inputs(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states and head rows that want gradients, and targets."""
    made = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, WIDTH, generator=made, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(ROWS, WIDTH, generator=made, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, ROWS, (tokens,), generator=made)


def naive(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, masked: torch.Tensor | None = None) -> Any:
    """All logits at once, by torch's own functions, over the rows that are not masked."""
    kept = torch.arange(len(weight)) if masked is None else (~masked).nonzero().flatten()
    places = torch.full((len(weight),), -1).scatter(0, kept, torch.arange(len(kept)))
    targets = torch.where(targets == IGNORED, IGNORED, places[targets.clamp(min=0)])
    logits = hidden @ weight[kept].T
    nll = F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)
    log_probs = logits.log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    is_ignored = targets == IGNORED
    return nll, entropy.masked_fill(is_ignored, 0.0), (logits.argmax(-1) == targets) & ~is_ignored


def gradients(losses: Any, hidden: torch.Tensor, weight: torch.Tensor, loss_weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a sum that weighs every token's two losses differently."""
    nll, entropy, _ = losses
    return torch.autograd.grad((nll * loss_weights).sum() - 0.3 * (entropy * loss_weights.flip(0)).sum(), (hidden, weight))


def assert_equal_to_naive(hidden: Any, weight: Any, targets: Any, chunk: int, masked: Any = None, is_masked: Any = None) -> None:
    loss_weights = torch.linspace(0.0, 2.0, len(targets), dtype=hidden.dtype)
    ours, theirs = (
        head_losses(hidden, weight, targets, masked=masked, tokens_at_once=chunk),
        naive(hidden, weight, targets, is_masked),
    )
    torch.testing.assert_close(ours[:2], theirs[:2])
    assert torch.equal(ours[2], theirs[2])
    torch.testing.assert_close(gradients(ours, hidden, weight, loss_weights), gradients(theirs, hidden, weight, loss_weights))
    loss, losses = weighted_loss(hidden, weight, targets, loss_weights, masked=masked, tokens_at_once=chunk)
    theirs = naive(hidden, weight, targets, is_masked)
    summed = (theirs[0] * loss_weights).sum()
    torch.testing.assert_close((loss, *losses), (summed, *theirs))
    # A sum that is scaled behind, as a step's is by its weight.
    torch.testing.assert_close(torch.autograd.grad(loss / 7, (hidden, weight)), torch.autograd.grad(summed / 7, (hidden, weight)))


def test_a_weighted_loss_without_gradient_makes_none() -> None:
    hidden, weight, targets = inputs(5)
    with torch.no_grad():
        loss, _ = weighted_loss(hidden, weight, targets, torch.ones(5))
    assert not loss.requires_grad
    weight.requires_grad_(False)
    (gradient,) = torch.autograd.grad(weighted_loss(hidden, weight, targets, torch.ones(5))[0], [hidden])
    torch.testing.assert_close(gradient, torch.autograd.grad(naive(hidden, weight, targets)[0].sum(), [hidden])[0])


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 12), chunk=st.integers(1, 13), ignored=st.sets(st.integers(0, 11)), seed=st.integers(0, 99))
def test_losses_and_gradients_are_those_of_all_logits_at_once(tokens: int, chunk: int, ignored: set[int], seed: int) -> None:
    hidden, weight, targets = inputs(tokens, seed)
    targets[[place for place in sorted(ignored) if place < tokens]] = IGNORED
    assert_equal_to_naive(hidden, weight, targets, chunk)


def test_a_chunk_without_targets_and_a_batch_without_any_have_no_loss_and_no_gradient() -> None:
    hidden, weight, targets = inputs(9)
    targets[3:6] = IGNORED
    assert_equal_to_naive(hidden, weight, targets, chunk=3)
    nll, entropy, is_right = head_losses(hidden, weight, torch.full((9,), IGNORED), tokens_at_once=3)
    assert not any(bool(found.any()) for found in (nll, entropy, is_right))
    for gradient in torch.autograd.grad(nll.sum() + entropy.sum(), (hidden, weight)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_tokens_at_all_still_reach_every_weight() -> None:
    """A rank or micro-batch may have no target; its gradients are zeros then, not missing."""
    hidden, weight, targets = inputs(0)
    nll, _, _ = head_losses(hidden, weight, targets)
    nll.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize("masked", [slice(15, None), slice(4, 9), torch.arange(ROWS) % 3 == 1], ids=["tail", "middle", "any"])
def test_masked_ids_have_no_probability_and_no_gradient(masked: Any) -> None:
    hidden, weight, targets = inputs(10)
    is_masked = masked if isinstance(masked, torch.Tensor) else torch.zeros(ROWS, dtype=torch.bool)
    if isinstance(masked, slice):
        is_masked[masked] = True
    targets = (~is_masked).nonzero().flatten()[torch.arange(10) % int((~is_masked).sum())]
    assert_equal_to_naive(hidden, weight, targets, 4, masked, is_masked)
    nll, entropy, is_right = head_losses(hidden, weight, targets, masked=masked)
    (nll + entropy).sum().backward()
    assert weight.grad is not None
    assert not weight.grad[is_masked].any()
    banned = torch.full_like(targets, int(is_masked.nonzero()[0]))
    nll, _, is_right = head_losses(hidden, weight, banned, masked=masked)
    assert bool(torch.isinf(nll).all())
    assert not is_right.any()


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same() -> None:
    hidden, weight, targets = inputs(7)
    (expected,) = torch.autograd.grad(naive(hidden, weight, targets)[0].sum(), hidden)
    nll, _, _ = head_losses(hidden, weight.detach(), targets, tokens_at_once=3)
    nll.sum().backward()
    torch.testing.assert_close(hidden.grad, expected)
    assert weight.grad is None


def test_half_precision_gives_wide_losses_near_the_exact_ones() -> None:
    hidden, weight, targets = inputs(64, dtype=torch.bfloat16)
    exact = naive(hidden.double(), weight.double(), targets)
    nll, entropy, _ = head_losses(hidden, weight, targets, tokens_at_once=16)
    assert nll.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(nll.double(), exact[0], atol=0.05, rtol=0.02)
    nll.sum().backward()
    wide, wide_weight, _ = inputs(64)
    (expected,) = torch.autograd.grad(naive(wide, wide_weight, targets)[0].sum(), wide_weight)
    assert weight.grad is not None
    assert weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(weight.grad.double(), expected, atol=0.2, rtol=0.05)
