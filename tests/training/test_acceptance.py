"""The trained step means something: on real speech, ASR loss rises by a fifth and more when audio is swapped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ
from training.recipe import TrainingRecipe, load_training_recipe
from training.run import train

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEAST_RISE = 0.2


def digit_splits(shared: Path, speakers: tuple[str, ...], takes: int) -> dict[str, list[tuple[str, str, np.ndarray]]]:
    """Takes below ``takes`` of the speakers; 0 to 4, the set's own test split, are held out."""
    splits: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "test": []}
    for path in sorted((shared / "speech" / "digits").glob("*/*.flac")):
        digit, speaker, take = path.stem.split("_")
        if speaker in speakers and int(take) < takes:
            audio, rate = soundfile.read(path, dtype="float32")
            spoken = (path.stem, DIGITS[int(digit)], resample(audio, rate, MODEL_RATE_HZ))
            splits["test" if int(take) < 5 else "train"].append(spoken)
    return splits


def check_digits(pack: Any, recipe: TrainingRecipe, run: Path) -> None:
    """Train to the end of alignment, print the figures, and hold them against the rule."""
    result = train(recipe, pack.pack, pack.tokenizer, str(run), until="align")
    found = json.loads((run / "evaluation.json").read_text())["splits"]
    wall_s = sum(stage["wall_s"] for stage in json.loads((run / "summary.json").read_text())["stages"])
    print(json.dumps({"splits": found, "wall_s": wall_s}))
    assert result.swap_rise == found["train"]["swap_rise"] >= LEAST_RISE
    assert found["test"]["swap_rise"] >= LEAST_RISE
    # Text and stop of a single digit: log(10) / 2 nats a target for one who guesses without listening.
    assert found["test"]["align_loss"] < 0.8 * np.log(10) / 2


def shortened(recipe: TrainingRecipe, steps: dict[str, int]) -> TrainingRecipe:
    """The recipe with fewer steps, on one thread; the stages that are not named are left out."""
    kept = [stage for stage in recipe.stages if stage.name in steps]
    stages = tuple(stage.model_copy(update={"steps": steps[stage.name], "warmup_steps": 5}) for stage in kept)
    return recipe.model_copy(update={"stages": stages, "threads": 1})


@pytest.mark.slow
def test_a_tiny_model_hears_digits_that_it_was_not_trained_on(make_pack: Any, shared: Path, tmp_path: Path) -> None:
    pack = make_pack(digit_splits(shared, ("jackson", "nicolas"), takes=25))
    recipe = shortened(load_training_recipe("digits"), {"encoder_ctc": 100, "decoder_text": 60, "align": 40})
    check_digits(pack, recipe, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif("STEPWELL_WHOLE_DIGITS" not in os.environ, reason="minutes: STEPWELL_WHOLE_DIGITS=1 measures all 2,000 clips")
def test_the_digits_recipe_on_the_whole_set(make_pack: Any, shared: Path, tmp_path: Path) -> None:
    pack = make_pack(digit_splits(shared, ("george", "jackson", "lucas", "nicolas"), takes=50))
    recipe = load_training_recipe("digits")
    check_digits(pack, shortened(recipe, {stage.name: stage.num_steps for stage in recipe.stages}), tmp_path / "run")


HANDFUL = {"encoder_ctc": 110, "decoder_text": 80, "align": 40}


@pytest.mark.slow
def test_a_handful_of_clips_can_be_aligned(real_pack: Any, tmp_path: Path) -> None:
    assert handful_rise(real_pack, tmp_path / "run") >= LEAST_RISE


@pytest.mark.slow
def test_clips_that_say_nothing_stay_below_the_rule(deaf_pack: Any, tmp_path: Path) -> None:
    """The control: a model that can only tell the clips by their lengths does not pass."""
    assert handful_rise(deaf_pack, tmp_path / "run") < LEAST_RISE


def handful_rise(pack: Any, run: Path) -> float:
    """Train the demo's recipe, cut short, to the end of alignment; print the figures and return the first split's."""
    result = train(shortened(load_training_recipe("demo"), HANDFUL), pack.pack, pack.tokenizer, str(run))
    print((run / "evaluation.json").read_text())
    assert result.swap_rise is not None
    return result.swap_rise
