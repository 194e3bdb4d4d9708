from __future__ import annotations

import numpy as np
import pytest
import torch

from manifests.errors import ContractError
from tokenization.vocabulary import Vocabulary
from training.growth import draw_new_rows, row_statistics

VOCABULARY = Vocabulary.small(600, num_codes=3000)
WIDTH = 24


def matrix(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows with a mean far from zero and columns that go together."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(VOCABULARY.num_rows, WIDTH, generator=generator) @ torch.randn(WIDTH, WIDTH, generator=generator)
    return (0.02 * mixed + 0.3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrappers", [False, True])
def test_known_rows_stay_bit_for_bit_and_all_others_are_new(dtype: torch.dtype, wrappers: bool) -> None:
    before = matrix(dtype)
    after, known = before.clone(), VOCABULARY.known_rows(wrappers=wrappers)
    draw_new_rows(after, known, 1, "embedding")
    assert after[: VOCABULARY.num_text_rows].view(torch.uint8).equal(before[: VOCABULARY.num_text_rows].view(torch.uint8))
    is_same = (after == before).all(1).numpy()
    assert (is_same == known).all()
    assert torch.isfinite(after.float()).all()
    assert len(torch.unique(after[~known].float(), dim=0)) == (~known).sum()


def test_new_rows_have_the_mean_and_covariance_of_the_known() -> None:
    weight, known = matrix(), VOCABULARY.known_rows(wrappers=False)
    draw_new_rows(weight, known, 1, "embedding")
    (old_mean, old_cov), (new_mean, new_cov) = (row_statistics(weight[torch.from_numpy(rows)]) for rows in (known, ~known))
    # About 3,000 draws: a mean is off by up to 4/sqrt(3000) deviations, a covariance by about 4*sqrt(2/3000) of a variance.
    assert ((new_mean - old_mean).abs() < 0.08 * old_cov.diagonal().sqrt()).all()
    scale = old_cov.diagonal().sqrt()
    assert ((new_cov - old_cov).abs() < 0.11 * torch.outer(scale, scale)).all()


def test_the_statistics_are_those_of_numpy() -> None:
    rows = matrix()
    mean, covariance = row_statistics(rows)
    np.testing.assert_allclose(mean, rows.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(rows.double().numpy().T), rtol=1e-9, atol=1e-15)


def test_a_draw_is_a_function_of_seed_and_name() -> None:
    def drawn(seed: int, name: str) -> torch.Tensor:
        weight = matrix()
        draw_new_rows(weight, VOCABULARY.known_rows(wrappers=False), seed, name)
        return weight

    assert torch.equal(drawn(1, "embedding"), drawn(1, "embedding"))
    assert not torch.equal(drawn(1, "embedding"), drawn(2, "embedding"))
    assert not torch.equal(drawn(1, "embedding"), drawn(1, "head"))


def test_fewer_rows_than_columns_and_equal_rows_still_give_rows() -> None:
    for known_rows in (torch.randn(3, WIDTH), torch.ones(3, WIDTH)):
        weight = torch.cat([known_rows, torch.zeros(5, WIDTH)])
        draw_new_rows(weight, np.arange(8) < 3, 0, "embedding")
        assert torch.isfinite(weight).all()
        torch.testing.assert_close(weight[:3], known_rows, rtol=0, atol=0)


def test_a_mask_of_other_rows_is_refused() -> None:
    with pytest.raises(ContractError, match="must have the matrix's rows"):
        draw_new_rows(torch.zeros(8, WIDTH), np.arange(9) < 3, 0, "embedding")
    with pytest.raises(ContractError, match="1 of 8 rows known"):
        draw_new_rows(torch.zeros(8, WIDTH), np.arange(8) < 1, 0, "embedding")
