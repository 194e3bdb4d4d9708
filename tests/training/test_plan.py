from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifests.errors import RequestError
from training.config import model_config
from training.cost import Work, stage_flops
from training.data import Batching, DocumentReader, stage_data, task_documents
from training.examples import ExampleMaker
from training.figures import StagePlan
from training.inputs import check_curriculum, growing_stage, open_inputs
from training.machines import Machine, find_machine
from training.plan import make_plan, make_plan_without_pack, widest
from training.recipe import DataRecipe, Group, LossWeights, Task, TrainingRecipe, load_training_recipe
from training.start import loaded_groups
from training.start_recipe import StartRecipe
from training.workload import Assumptions

Recipes = Callable[..., TrainingRecipe]
CPU = find_machine("cpu2")
RATE = {"lr": 1e-3}
ASR = {"name": "align", "kind": "pretrain", "tasks": {"asr": 1}, "train": {"adaptor": RATE}}
SHAPE = {"steps": 5, "sequence_length": 256, "sequences_per_step": 4}


def test_a_stage_of_a_pack_costs_what_its_examples_cost(chord_pack: Any, demo_recipe: TrainingRecipe) -> None:
    inputs = open_inputs(demo_recipe, chord_pack.pack, chord_pack.tokenizer)
    plan = make_plan(inputs, CPU)
    for stage, planned in zip(demo_recipe.stages, plan.stages, strict=True):
        assert planned.steps == stage.num_steps
    align, tts = demo_recipe.stages[2], plan.stages[3]
    assert [*tts.tasks] == ["asr", "tts"]
    assert tts.tasks["tts"].share == pytest.approx(0.75)
    assert sum(task.tokens for task in tts.tasks.values()) == pytest.approx(tts.tokens)
    assert tts.tasks["asr"].documents == 12
    # By brute force: the examples of as many tokens as the stage draws, over and over.
    planned = plan.stages[2]
    split, maker = inputs.split(align), ExampleMaker(inputs.layouts, LossWeights())
    documents = task_documents(split, DocumentReader(inputs.pack, 1 << 30), maker, demo_recipe, align)[Task.ASR]
    examples = [documents.example(position) for position in range(12)]
    work = sum((Work.of_example(len(e.ids), int((e.weights > 0).sum()), [len(a) for a in e.audio]) for e in examples), Work())
    work *= planned.tokens / work.positions
    vocabulary = inputs.tokenizer.vocabulary
    flops = stage_flops(model_config(demo_recipe.model), vocabulary.num_rows, vocabulary.text_size + 1, work, align.train)
    assert sum(planned.flops.values()) == pytest.approx(sum(part.total for part in flops.values()))
    assert planned.wall_hours == pytest.approx(sum(planned.flops.values()) / (CPU.flops_per_s * CPU.efficiency) / 3600)
    assert planned.tasks["asr"].passes == pytest.approx(planned.tokens / sum(len(example.ids) for example in examples))


def test_audio_is_counted_as_long_as_speeds_and_ends_make_it(chord_pack: Any, make_recipe: Recipes, curriculum_of: Any) -> None:
    """Time and operations by all speeds and ends of mean length, memory by the slowest with the longest ends."""
    stage, *_ = curriculum_of(12)

    def planned(*factors: float, **ends: Any) -> StagePlan:
        recipe = make_recipe([{**stage, "augment": {"speed": {"factors": factors}, **ends}}])
        return make_plan(open_inputs(recipe, chord_pack.pack, chord_pack.tokenizer), CPU).stages[0]

    slow, plain, both = planned(0.5), planned(1.0), planned(0.5, 1.0)
    assert sum(both.flops.values()) == pytest.approx((sum(slow.flops.values()) + sum(plain.flops.values())) / 2)
    assert both.wall_hours == pytest.approx((slow.wall_hours + plain.wall_hours) / 2)
    assert both.memory == slow.memory
    assert slow.memory.activations == pytest.approx(2 * plain.memory.activations)
    some, more = (planned(1.0, ends={"longest_s": seconds}).memory.activations for seconds in (0.2, 0.4))
    assert more - plain.memory.activations == pytest.approx(2 * (some - plain.memory.activations))
    # What the stage really hears: 48 documents at drawn speeds, between drawn ends.
    drawn: dict[str, Any] = {"speed": {"factors": (0.5, 1.0)}, "ends": {"longest_s": 0.4}}
    stated = planned(*drawn["speed"]["factors"], ends=drawn["ends"])
    recipe = make_recipe([{**stage, "augment": drawn}])
    inputs = open_inputs(recipe, chord_pack.pack, chord_pack.tokenizer)
    maker, reader = ExampleMaker(inputs.layouts, LossWeights()), DocumentReader(inputs.pack, 1 << 30)
    data = stage_data(inputs.train, reader, maker, recipe, recipe.stages[0], Batching(40, 0))
    batches = [batch for _ in range(12) for batch in data.next_step()]
    heard = sum((Work.of_piece(int(num) + 2) for batch in batches for num in batch.heard.num_valid_A), Work())
    vocabulary = inputs.tokenizer.vocabulary
    flops = stage_flops(model_config("micro"), 0, vocabulary.text_size + 1, heard, recipe.stages[0].train, is_ctc=True)
    assert sum(stated.flops.values()) == pytest.approx(sum(part.total for part in flops.values()), rel=0.1)
    assert sum(stated.flops.values()) > 1.1 * sum(both.flops.values())


def test_the_mix_that_is_really_there_is_planned(chord_pack: Any, make_recipe: Recipes, curriculum_of: Any) -> None:
    before = curriculum_of(2)[:2]
    mixed = {**ASR, **SHAPE, "tasks": {"asr": 2, "s2tt": {"share": 5, "absent": "skip"}, "text": 2}, "train": {"decoder": RATE}}
    plan = make_plan(open_inputs(make_recipe([*before, mixed]), chord_pack.pack, chord_pack.tokenizer), CPU)
    stage = plan.stages[2]
    assert {name: task.share for name, task in stage.tasks.items()} == {"asr": 0.5, "text": 0.5}
    assert stage.skipped == ("s2tt",)
    assert any("skipped, since no document serves them: s2tt" in line for line in plan.lines())
    refused = {**mixed, "tasks": {"asr": 2, "s2tt": 5}}
    with pytest.raises(RequestError, match=r"serves task 's2tt'.*say absent: skip"):
        open_inputs(make_recipe([*before, refused]), chord_pack.pack, chord_pack.tokenizer)


@pytest.mark.parametrize(
    ("key", "value"), [("train_split", "learn"), ("swap_splits", ["train", "learn"]), ("held_out_splits", ["learn"])]
)
def test_a_split_that_the_pack_lacks_is_refused_with_those_that_it_has(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Any, key: str, value: Any
) -> None:
    *before, last = curriculum_of(2)
    recipe = make_recipe([*before, {**last, "measure_swap": True, "measures": ["text"]}])
    recipe = recipe.model_copy(update={"data": DataRecipe(**{key: value})})
    with pytest.raises(
        RequestError, match=rf"no split 'learn', which the recipe's data\.{key} names; it has \['train', 'test'\]: name one"
    ):
        open_inputs(recipe, chord_pack.pack, chord_pack.tokenizer)
    open_inputs(make_recipe([*before, last]), chord_pack.pack, chord_pack.tokenizer)
    unmeasured = make_recipe(curriculum_of(2)).model_copy(update={"data": DataRecipe(held_out_splits=("learn",))})
    open_inputs(unmeasured, chord_pack.pack, chord_pack.tokenizer)


def test_an_adaptor_alone_over_what_is_random_is_refused(chord_pack: Any, make_recipe: Recipes, curriculum_of: Any) -> None:
    ctc, text, *_ = curriculum_of(2)
    align = {**ASR, **SHAPE}
    with_rows = {**align, "train": {**align["train"], "embedding": {"lr": 1e-3}, "head": {"lr": 1e-3}}}
    for stages, part in (
        ([align], "encoder"),
        ([ctc, align], "decoder"),
        ([text, align], "encoder"),
        ([ctc, with_rows], "decoder"),
        ([text, with_rows], "encoder"),
    ):
        with pytest.raises(
            RequestError, match=f"stage 'align' trains the adaptor and not the decoder, over an? {part} that .* set start.{part}"
        ):
            open_inputs(make_recipe(stages), chord_pack.pack, chord_pack.tokenizer)
    check_curriculum(make_recipe([ctc, text, align]), set())
    check_curriculum(make_recipe([ctc, text, with_rows]), set())
    check_curriculum(make_recipe([{**align, "train": {**align["train"], "decoder": {"lr": 1e-3}}}]), set())
    check_curriculum(make_recipe([align]), loaded_groups(StartRecipe(encoder="e", decoder="d")))
    check_curriculum(make_recipe([ctc, align]), loaded_groups(StartRecipe(decoder="d")))
    check_curriculum(make_recipe([align]), loaded_groups(StartRecipe(model="m")))


def test_sequences_longer_than_the_model_sees_are_refused(make_recipe: Recipes) -> None:
    with pytest.raises(RequestError, match="sequence_length 4096 is past the 2048 positions of model 'micro'"):
        check_curriculum(make_recipe([{**ASR, **SHAPE, "sequence_length": 4096}]), set(Group))


def test_the_vocabulary_grows_once_behind_stages_of_text(make_recipe: Recipes, curriculum_of: Any) -> None:
    ctc, text, align, tts = curriculum_of(2)
    of_text = [{**stage, "vocabulary": "text"} for stage in (text, align)]
    assert growing_stage(make_recipe([ctc, *of_text, tts, {**tts, "name": "more"}]), set()) == 3
    assert growing_stage(make_recipe([ctc, text, align, tts]), set()) is None
    assert growing_stage(make_recipe([ctc, *of_text]), set()) is None
    assert growing_stage(make_recipe([*of_text, tts]), {Group.DECODER}) is None


def small_machine(memory_bytes: float, **changes: Any) -> Machine:
    return Machine(
        name="own", kind="cuda", memory_bytes=memory_bytes, flops_per_s=1e12, efficiency=0.5, **{"num_devices": 1, **changes}
    )


def test_what_does_not_fit_is_refused_and_the_remedy_fits() -> None:
    recipe = load_training_recipe("step_audio_2")
    with pytest.raises(
        RequestError, match=r"stage 'align' needs .* GiB on a device, and machine 'h200x1' has 139 GiB: say micro_batches: 64"
    ):
        make_plan_without_pack(recipe, find_machine("h200x1"), Assumptions())
    first = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"micro_batches": 64}),)})
    assert (
        make_plan_without_pack(first, find_machine("h200x1"), Assumptions()).stages[0].memory.peak
        < find_machine("h200x1").memory_bytes
    )
    # All weights trained: no cut of the batch makes the moments fit one device.
    main = recipe.model_copy(update={"stages": (recipe.stages[2],)})
    with pytest.raises(RequestError, match="take 2 devices"):
        make_plan_without_pack(main, find_machine("h100x1"), Assumptions())
    kept = recipe.model_copy(update={"recompute": False, "stages": (recipe.stages[2],)})
    with pytest.raises(RequestError, match="say recompute: true"):
        make_plan_without_pack(kept, find_machine("h100x8"), Assumptions())
    with pytest.raises(RequestError, match="choose a smaller model, shorter sequences or a machine with more memory"):
        make_plan_without_pack(main, find_machine("cpu2").model_copy(update={"memory_bytes": 16 * 2**30}), Assumptions())
    with pytest.raises(RequestError, match="sequences_per_step 1024 cannot be dealt to 7 devices in 16 micro-batches"):
        make_plan_without_pack(recipe, find_machine("h100x7"), Assumptions())


def test_the_reports_recipe_is_the_reports() -> None:
    recipe = load_training_recipe("step_audio_2")
    billions = {stage.name: {task.value: given.share for task, given in stage.tasks.items()} for stage in recipe.stages}
    # Reference, section 2, in billions of tokens.
    assert billions == {
        "align": {"asr": 100},
        "vocabulary": {"text": 128, "tts": 80, "conversation": 32, "continuation": 16},
        "main": {
            "text": 400,
            "asr": 42,
            "tts": 120,
            "s2tt": 8,
            "t2st": 30,
            "continuation_text": 5,
            "continuation": 45,
            "conversation": 150,
        },
        "cooldown": {
            "text": 100,
            "asr": 24.6,
            "tts": 12.4,
            "captioning": 2.4,
            "s2tt": 3.6,
            "s2st": 6,
            "continuation": 15,
            "conversation": 36,
        },
    }
    rates = [{group.value: (rate.lr, rate.lr_end) for group, rate in stage.train.items()} for stage in recipe.stages]
    everything = ("decoder", "adaptor", "embedding", "head")
    assert rates == [
        {"adaptor": (1e-4, 2e-5)},
        dict(zip(everything, [(2e-5, None), (5e-5, None), (5e-5, None), (4e-5, None)], strict=True)),
        dict.fromkeys(everything, (2e-5, None)),
        dict.fromkeys(everything, (2e-5, 5e-6)),
    ]
    assert [stage.sequence_length for stage in recipe.stages] == [8192, 16_384, 16_384, 16_384]
    assert [stage.vocabulary.value for stage in recipe.stages] == ["text", "full", "full", "full"]
    for stage, shares in zip(recipe.stages, billions.values(), strict=True):
        assert stage.tokens == round(sum(shares.values()) * 1e9)
    assert recipe.stages[0].num_steps == pytest.approx(12_000, rel=0.01)


def test_the_reports_recipe_is_planned_without_a_pack() -> None:
    plan = make_plan_without_pack(load_training_recipe("step_audio_2"), find_machine("h100x8"), Assumptions())
    assert sum(stage.tokens for stage in plan.stages) == pytest.approx(1.356e12, rel=1e-4)
    assert plan.parameters == pytest.approx(8.315e9 + 1280 * 151_666, rel=1e-3)  # and the head of this trainer's own
    # Six operations a weight and token, one more third recomputed, and attention: within a factor of what is known of such models.
    trained = sum(stage.tokens for stage in plan.stages[1:])
    spent = sum(sum(stage.flops.values()) for stage in plan.stages[1:])
    assert 1.0 < spent / (6 * 7.1e9 * trained) < 4 / 3
    assert all(stage.memory.peak < plan.machine.memory_bytes for stage in plan.stages)
    text = "\n".join(plan.lines())
    for expected in (
        "no pack: documents are assumed (utterance_s 10",
        "GPU-hours",
        "40% are assumed to be reached",
        "align: 11,921 steps",
    ):
        assert expected in text
    assert plan.to_json()["stages"][0]["tasks"]["asr"]["documents"] is None


def test_weights_that_stay_frozen_within_a_group_are_not_counted_as_trained(make_recipe: Recipes, curriculum_of: Any) -> None:
    text = curriculum_of(2)[1]
    whole, less = (
        make_plan_without_pack(make_recipe([{**text, "frozen": frozen}]), CPU, Assumptions()).stages[0].trainable_parameters
        for frozen in ([], ["model.layers.0.*"])
    )
    # Of two layers one: q, k, v and o with their biases, the three matrices of the MLP and two norms.
    assert whole - less == 32 * 32 * 2 + 32 + 2 * (32 * 16 + 16) + 3 * 32 * 64 + 2 * 32
    with pytest.raises(RequestError, match=r"frozen pattern 'encoder\.\*' matches no weight"):
        make_plan_without_pack(make_recipe([{**text, "frozen": ["encoder.*"]}]), CPU, Assumptions())


def test_a_small_recipe_without_a_pack_has_a_small_vocabulary() -> None:
    plan = make_plan_without_pack(load_training_recipe("demo"), CPU, Assumptions(text_ids=1000))
    assert plan.parameters < 10e6
    assert plan.assumed == Assumptions(text_ids=1000)


def test_a_micro_batch_may_hold_one_task_alone() -> None:
    assert widest([Work(positions=3, targets=1), Work(positions=2, patches=7)]) == Work(positions=3, targets=1, patches=7)
