from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifests.errors import RequestError
from manifests.recipes import decode_recipe
from training.recipe import Group, Task, TrainingRecipe, load_training_recipe

RATE = {"lr": 1e-3}
ASR = {"name": "align", "tasks": {"asr": 1}, "train": {"adaptor": RATE}, "steps": 5, "batch_documents": 4}
CTC = {"name": "ctc", "tasks": {"ctc": 1}, "train": {"encoder": RATE, "ctc_head": RATE}, "steps": 5, "batch_documents": 4}


@pytest.mark.parametrize("name", ["demo", "digits"])
def test_shipped_recipes_go_through_the_curriculum(name: str) -> None:
    recipe = load_training_recipe(name)
    assert [stage.name for stage in recipe.stages] == ["encoder_ctc", "decoder_text", "align", "tts"]
    by_name = {stage.name: stage for stage in recipe.stages}
    assert set(by_name["align"].train) == {Group.ADAPTOR}
    assert set(by_name["align"].tasks) == {Task.ASR}
    assert by_name["align"].measure_swap
    assert Task.REPEAT in by_name["decoder_text"].tasks
    assert Group.ENCODER not in by_name["tts"].train


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({**ASR, "wramup": 3}, "stages.0.wramup"),
        ({**ASR, "tasks": {"sing": 1}}, "sing"),
        ({**ASR, "tasks": {}}, "at least 1"),
        ({**ASR, "steps": 0}, "greater than 0"),
        ({**ASR, "warmup_steps": 5}, "below steps"),
        ({**ASR, "micro_batches": 3}, "multiple of micro_batches"),
        ({**ASR, "train": {"vocoder": RATE}}, "vocoder"),
        ({**ASR, "train": {"ctc_head": RATE}}, "task ctc only"),
        ({**CTC, "tasks": {"ctc": 1, "asr": 1}}, "stage of its own"),
        ({**CTC, "train": {"adaptor": RATE}}, "encoder and ctc_head only"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_with_its_place(stage: dict[str, Any], message: str) -> None:
    import yaml

    with pytest.raises(RequestError, match=message):
        decode_recipe(TrainingRecipe, yaml.safe_dump({"model": "micro", "stages": [stage]}), "mine")


def test_models_and_stage_names_must_be_known_and_apart(make_recipe: Callable[..., TrainingRecipe]) -> None:
    with pytest.raises(ValueError, match="sizes are tiny, micro, mini"):
        make_recipe([ASR], model="huge")
    with pytest.raises(ValueError, match="not all different"):
        make_recipe([ASR, ASR])
