"""Runs that multiply in bfloat16: they learn as those in float32 do, and go on exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from manifests.errors import MismatchError
from training.head import head_losses, weighted_loss
from training.journal import read_rows
from training.recipe import Precision, TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS, StageTrainer

# Of a loss, what the narrower type may move it by over the few steps of these runs.
MARGIN = 0.02


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., Any]) -> TrainingRecipe:
    """Every stage of the curriculum, a few steps each."""
    return make_recipe(curriculum_of(8), checkpoint_every=3)


def in_bf16(recipe: TrainingRecipe) -> TrainingRecipe:
    return recipe.model_copy(update={"precision": Precision.BF16})


def losses(run: str) -> list[float]:
    return [row["loss"] for row in read_rows(run) if "loss" in row]


def steps(run: str) -> list[dict[str, Any]]:
    """Rows of metrics, without what moves with the clock."""
    return [{name: value for name, value in row.items() if name not in CLOCK_COLUMNS} for row in read_rows(run)]


@pytest.fixture(scope="module")
def narrow(chord_pack: Any, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole run in bfloat16."""
    run = str(tmp_path_factory.mktemp("narrow") / "run")
    train(in_bf16(recipe), chord_pack.pack, chord_pack.tokenizer, run)
    return run


@pytest.mark.slow
def test_it_learns_as_in_float32(chord_pack: Any, recipe: TrainingRecipe, narrow: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, run)
    wide, found = losses(run), losses(narrow)
    assert found == pytest.approx(wide, rel=MARGIN)
    assert found != wide
    assert found[-1] < found[-8]


def test_weights_gradients_and_moments_stay_float32(
    chord_pack: Any, make_recipe: Any, curriculum_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = {**curriculum_of(1)[-1], "warmup_steps": 0}
    seen: set[torch.dtype] = set()
    whole = StageTrainer.train_step

    def watched(trainer: StageTrainer, batches: Any) -> dict[str, Any]:
        row = whole(trainer, batches)
        seen.update(p.dtype for p in trainer.model.parameters())
        seen.update(p.grad.dtype for p in trainer.trained.values() if p.grad is not None)
        seen.update(moment.dtype for state in trainer.optimizer.state.values() for moment in state.values())
        return row

    monkeypatch.setattr(StageTrainer, "train_step", watched)
    recipe = make_recipe([spoken], precision="bf16")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "run"))
    assert seen == {torch.float32}


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_in_no_other_precision(
    chord_pack: Any, recipe: TrainingRecipe, narrow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = str(tmp_path / "run"), StageTrainer.train_step
    again = (in_bf16(recipe), chord_pack.pack, chord_pack.tokenizer, run)

    def stopping(trainer: StageTrainer, batches: Any) -> dict[str, Any]:
        if trainer.stage.name == recipe.stages[-1].name and trainer.step == 4:
            raise KeyboardInterrupt
        return whole(trainer, batches)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "train_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(*again)
    with pytest.raises(MismatchError, match=r"dtype bf16 \(here fp32\).*--allow-inexact"):
        train(recipe, chord_pack.pack, chord_pack.tokenizer, run, resume=True)
    train(*again, resume=True)
    assert steps(run) == steps(narrow)


def test_the_heads_losses_are_float32_of_narrow_products() -> None:
    made = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=made).requires_grad_() for n in (40, 30))
    targets, weights = torch.randint(0, 30, (40,), generator=made), torch.ones(40)
    with torch.autocast("cpu", torch.bfloat16):
        loss, losses = weighted_loss(hidden, weight, targets, weights, tokens_at_once=7)
        alone = head_losses(hidden, weight, targets, tokens_at_once=7)
    gradients = [torch.autograd.grad(summed, (hidden, weight)) for summed in (loss, alone[0].sum())]
    assert {x.dtype for x in (loss, *losses[:2], *alone[:2], *gradients[0], *gradients[1])} == {torch.float32}
    narrow = [x.detach().bfloat16().double() for x in (hidden, weight)]
    expected = torch.nn.functional.cross_entropy(narrow[0] @ narrow[1].T, targets, reduction="sum")
    # Logits have eight bits behind the point.
    assert float(loss) == pytest.approx(float(expected), rel=1e-3)
    torch.testing.assert_close(losses[:2], alone[:2])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.02, atol=0.02)
