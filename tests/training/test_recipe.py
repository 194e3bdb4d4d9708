from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from manifests.errors import RequestError
from manifests.recipes import decode_recipe
from training.recipe import Group, Task, TrainingRecipe, load_training_recipe

RATE = {"lr": 1e-3}
SHAPE = {"sequence_length": 256, "sequences_per_step": 4}
ASR = {"kind": "pretrain", "name": "align", "tasks": {"asr": 1}, "train": {"adaptor": RATE}, "steps": 5, **SHAPE}
CTC = {"kind": "ctc", "name": "ctc", "train": {"encoder": RATE, "ctc_head": RATE}, "steps": 5, "batch_documents": 4}
ENDING = {"lr": 1e-3, "lr_end": 1e-4}


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
        ({**ASR, "wramup": 3}, "key 'stages.0.wramup' is unknown"),
        ({**ASR, "kind": "pretain"}, "'stages.0.*pretain"),
        ({**ASR, "tasks": {"sing": 1}}, "sing"),
        ({**ASR, "tasks": {}}, "at least 1"),
        ({**ASR, "vocabulary": "text", "measures": ["tts"]}, "measure tts makes the model speak; say vocabulary: full"),
        ({**ASR, "evaluate_every": 5}, "evaluate_every 5 has nothing to measure"),
        ({**ASR, "tasks": {"asr": {"share": 0.5, "absent": "ignore"}}}, "'refuse' or 'skip'"),
        ({**ASR, "tasks": {"asr": 0}}, "greater than 0"),
        ({**ASR, "steps": 0}, "greater than 0"),
        ({**ASR, "tokens": 10}, "give one of them"),
        ({key: value for key, value in ASR.items() if key != "steps"}, "give one of them"),
        ({**ASR, "warmup_steps": 5}, "below steps 5"),
        ({**ASR, "micro_batches": 3}, "sequences_per_step 4 must be a multiple of micro_batches 3"),
        ({**ASR, "train": {"vocoder": RATE}}, "vocoder"),
        ({**ASR, "train": {"ctc_head": RATE}}, "kind ctc only"),
        ({**ASR, "train": {"adaptor": RATE, "encoder": RATE}}, "the encoder is trained by a stage of kind ctc only"),
        ({**ASR, "tasks": {"ctc": 1}}, "stage of kind ctc"),
        ({**ASR, "tasks": {"asr": 1, "tts": 1}, "vocabulary": "text"}, "masks audio ids"),
        ({**ASR, "schedule": "constant", "train": {"adaptor": ENDING}}, "constant has no lr_end"),
        ({**ASR, "loss_weights": {"tts_pad": 0}}, "greater than 0"),  # generation has to emit it
        ({**ASR, "prompts": {}}, "stages.0.prompts' is unknown"),
        ({**CTC, "train": {"adaptor": RATE}}, "encoder and ctc_head only"),
        ({**CTC, "micro_batches": 3}, "batch_documents 4 must be a multiple"),
        ({**CTC, "warmup_steps": 5}, "below steps 5"),
        ({**CTC, "loss_weights": {"text": 0}}, "leaves none"),
        ({**ASR, "betas": [0.9, 1.0]}, "less than 1"),
        ({**ASR, "train": {"adaptor": {"lr": float("inf")}}}, "finite number"),
        ({**ASR, "tasks": {"asr": float("inf")}}, "finite number"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_with_its_place(stage: dict[str, Any], message: str) -> None:
    import yaml

    with pytest.raises(RequestError, match=message):
        decode_recipe(TrainingRecipe, yaml.safe_dump({"model": "micro", "stages": [stage]}), "mine")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"repeat": {"max_patches_per_token": 0.5}}, "greater than or equal to 1"),
        ({"data": {"swap_splits": []}}, "at least 1 item"),
        ({"data": {"held_out_splits": []}}, "at least 1 item"),
    ],
)
def test_what_no_stage_could_work_with_is_refused(
    make_recipe: Callable[..., TrainingRecipe], part: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe([ASR], **part)


def test_models_and_stage_names_must_be_known_and_apart(make_recipe: Callable[..., TrainingRecipe]) -> None:
    with pytest.raises(ValueError, match="sizes are micro, tiny, small"):
        make_recipe([ASR], model="huge")
    with pytest.raises(ValueError, match="not all different"):
        make_recipe([ASR, ASR])


def test_a_share_may_stand_alone_and_says_what_happens_where_it_is_absent(make_recipe: Callable[..., TrainingRecipe]) -> None:
    stage = make_recipe([{**ASR, "tasks": {"asr": 3, "text": {"share": 1, "absent": "skip"}}}]).stages[0]
    assert {task.value: (given.share, given.absent) for task, given in stage.tasks.items()} == {
        "asr": (3.0, "refuse"),
        "text": (1.0, "skip"),
    }


def test_the_order_of_a_recipes_lines_changes_nothing(make_recipe: Callable[..., TrainingRecipe]) -> None:
    rate, tasks = {"lr": 1e-3}, {"asr": 1, "tts": 2, "text": 3}
    stage = {**ASR, "vocabulary": "full", "tasks": tasks, "train": {"adaptor": rate, "decoder": rate, "head": rate}}
    turned = {**stage, **{name: dict(reversed(stage[name].items())) for name in ("tasks", "train")}}
    # Sums go over groups and tasks: the same bits need the same order, not equal tables alone.
    stages = [make_recipe([given]).stages[0] for given in (stage, turned)]
    assert [*stages[0].train] == [*stages[1].train]
    assert [*stages[0].tasks] == [*stages[1].tasks]


def test_a_budget_of_tokens_is_as_many_steps_as_hold_it(make_recipe: Callable[..., TrainingRecipe]) -> None:
    budgeted = {key: value for key, value in ASR.items() if key != "steps"}
    steps = [make_recipe([{**budgeted, "tokens": tokens}]).stages[0].num_steps for tokens in (1, 1024, 1025)]
    assert steps == [1, 1, 2]  # 4 sequences of 256 a step


def test_a_prompt_of_a_translation_names_its_language() -> None:
    with pytest.raises(RequestError, match=r"prompts\.s2st.*does not say \{language\}"):
        decode_recipe(TrainingRecipe, json.dumps({"model": "micro", "stages": [ASR], "prompts": {"s2st": "Translate."}}), "mine")
    silent = {"s2tt": "", "t2st": "", "s2st": ""}
    assert (
        decode_recipe(TrainingRecipe, json.dumps({"model": "micro", "stages": [ASR], "prompts": silent}), "mine").prompts.s2tt
        == ""
    )
