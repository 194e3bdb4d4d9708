"""Ways of computing that a recipe may ask for: they change time and memory, not what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.journal import read_rows
from training.recipe import TrainingRecipe
from training.run import train


def losses(recipe: TrainingRecipe, pack: Any, run: Path) -> list[float]:
    train(recipe, pack.pack, pack.tokenizer, str(run))
    return [row["loss"] for row in read_rows(str(run))]


def test_recomputing_changes_no_bit_of_a_run(
    chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., Any], tmp_path: Path
) -> None:
    plain = losses(make_recipe(curriculum_of(2)), chord_pack, tmp_path / "plain")
    assert losses(make_recipe(curriculum_of(2), recompute=True), chord_pack, tmp_path / "again") == plain


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(
    chord_pack: Any,
    make_recipe: Callable[..., TrainingRecipe],
    curriculum_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A compiler that was killed leaves half a library in the shared cache, and every later run would load it.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    plain = losses(make_recipe(curriculum_of(2)), chord_pack, tmp_path / "plain")
    compiled = losses(make_recipe(curriculum_of(2), compile=True), chord_pack, tmp_path / "compiled")
    assert compiled == pytest.approx(plain, rel=1e-4)
