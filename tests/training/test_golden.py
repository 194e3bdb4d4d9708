"""Loss curves of the smallest model with a fixed seed, one a stage: a refactor must not move them.

Meant to move? ``STEPWELL_WRITE_GOLDEN=1 pytest tests/training/test_golden.py`` writes them anew; say why in the commit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.journal import read_rows
from training.recipe import TrainingRecipe
from training.run import train

GOLDEN = Path(__file__).parents[1] / "golden" / "training_curves.json"
COLUMNS = ("loss", "grad_norm")


def test_loss_curves_are_the_committed_ones(
    chord_pack: Any,
    make_recipe: Callable[..., TrainingRecipe],
    curriculum_of: Callable[[int], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    run = str(tmp_path / "run")
    train(make_recipe(curriculum_of(10)), chord_pack.pack, chord_pack.tokenizer, run)
    curves: dict[str, dict[str, list[float]]] = {}
    for row in read_rows(run):
        for column in COLUMNS:
            curves.setdefault(row["stage"], {}).setdefault(column, []).append(row[column])
    curves["swap"] = {
        name: [json.loads((tmp_path / "run" / "evaluation.json").read_text())[name]] for name in ("align_loss", "swapped_loss")
    }
    if os.environ.get("STEPWELL_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert curves.keys() == golden.keys()
    for stage, columns in golden.items():
        for column, values in columns.items():
            # Processors differ in their last bits, and gradients magnify that more than losses do.
            tolerance = 1e-3 if column == "grad_norm" else 1e-4
            assert curves[stage][column] == pytest.approx(values, rel=tolerance), (stage, column)
