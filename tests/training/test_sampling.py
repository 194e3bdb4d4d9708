from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.sampling import Sampling, draw, nucleus

ALL = torch.ones(1, 1, dtype=torch.bool)


def distribution(logits_BV: torch.Tensor, sampling: Sampling, seen_BV: torch.Tensor | None = None) -> torch.Tensor:
    """What ``draw`` draws from, found out by drawing at 4,000 even places of the unit interval."""
    places = (torch.arange(4_000) + 0.5) / 4_000
    many = logits_BV.expand(len(places), -1)
    seen = None if seen_BV is None else seen_BV.expand(len(places), -1)
    ids, log_probs = draw(many, torch.ones_like(many, dtype=torch.bool), seen, sampling, places)
    found = torch.bincount(ids, minlength=logits_BV.shape[1]) / len(places)
    stated = torch.zeros(logits_BV.shape[1]).scatter(0, ids, log_probs.exp())
    torch.testing.assert_close(found, stated, atol=1e-3, rtol=0)
    return stated


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 3.0), st.floats(0.05, 1.0), st.floats(0.6, 2.0))
def test_the_distribution_is_that_of_transformers(seed: int, temperature: float, top_p: float, penalty: float) -> None:
    from transformers.generation.logits_process import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(1, 12, generator=rng)
    said = torch.randint(12, (1, 5), generator=rng)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(said, logits)
    theirs = (
        TopPLogitsWarper(top_p)(said, TemperatureLogitsWarper(temperature)(said, theirs)) if top_p < 1 else theirs / temperature
    )
    seen = torch.zeros(1, 12, dtype=torch.bool).scatter(1, said, True)
    found = distribution(logits, Sampling(temperature=temperature, top_p=top_p, repetition_penalty=penalty), seen)
    torch.testing.assert_close(found, theirs.softmax(-1)[0], atol=1e-3, rtol=1e-4)


def test_ids_that_are_not_allowed_are_never_drawn() -> None:
    logits = torch.tensor([[9.0, 1.0, 1.0, 8.0]])
    allowed = torch.tensor([[False, True, True, False]])
    for place in (0.0, 0.3, 0.7, 1.0 - 2**-24):
        ids, log_probs = draw(logits, allowed, None, Sampling(temperature=1.0), torch.tensor([place]))
        assert int(ids) in (1, 2)
        assert float(log_probs) == pytest.approx(-0.6931, abs=1e-4)
    assert int(draw(logits, allowed, None, Sampling(), None)[0]) == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any), st.floats(0.001, 1.0))
def test_a_nucleus_is_the_shortest_that_holds_so_much(counts: list[int], top_p: float) -> None:
    probs = torch.tensor(sorted(counts, reverse=True), dtype=torch.float64)
    probs /= probs.sum()
    kept = int((nucleus(probs[None], top_p) > 0).sum())
    assert kept >= 1
    assert float(probs[:kept].sum()) >= top_p - 1e-9 or kept == int((probs > 0).sum())
    assert float(probs[: kept - 1].sum()) < top_p


def test_equal_numbers_give_equal_draws_and_the_ends_of_the_interval_hold() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    hot = Sampling(temperature=1.0)
    assert int(draw(logits, ALL.expand(1, 3), None, hot, torch.tensor([0.0]))[0]) == 1  # the likeliest comes first
    assert int(draw(logits, ALL.expand(1, 3), None, hot, torch.tensor([1.0 - 2**-24]))[0]) == 0
