from __future__ import annotations

import pytest
import torch

from training.ranks import ALONE
from training.sharding import group_norms, own, shard, sum_gradients, whole


def test_norms_are_exact_however_large_a_matrix_is() -> None:
    """Few rows of it large, as a head's are: one float32 sum over all of it would be 1e-4 off, or more."""
    gradient = torch.randn(2000, 2000, generator=torch.Generator().manual_seed(0))
    gradient[5::7] *= 0.01
    norms = group_norms({"decoder": [gradient, gradient.T], "adaptor": [torch.zeros(1)]}, ALONE)
    assert float(norms["decoder"]) == pytest.approx(float(gradient.double().norm()) * 2**0.5, rel=1e-6)
    assert norms["adaptor"] == 0.0


def test_alone_nothing_is_sharded_summed_or_copied() -> None:
    model = torch.nn.Linear(2, 2)
    shard(model, ALONE)  # type: ignore[arg-type]
    model.weight.grad = torch.ones(2, 2)
    sum_gradients(list(model.parameters()), ALONE)
    assert torch.equal(model.weight.grad, torch.ones(2, 2))
    assert model.bias.grad is None
    assert own(model.weight) is model.weight
    with whole(model.weight) as rows:
        assert rows is model.weight
