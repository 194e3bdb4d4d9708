from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from manifests.errors import MismatchError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.data import CYCLE, DocumentReader, StageData, collate, task_pattern
from training.documents import read_split
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.prompts import Prompts
from training.recipe import LossWeights, Task, TrainingRecipe

MakeData = Callable[..., StageData]


@pytest.fixture
def make_data(chord_pack: Any) -> MakeData:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())

    def make(recipe: TrainingRecipe, stage: int) -> StageData:
        split = read_split(pack, "train", layouts, list(Task), recipe.longest_sequence)
        maker = ExampleMaker(layouts, LossWeights())
        return StageData(split, DocumentReader(pack, 1 << 20), maker, recipe, recipe.stages[stage])

    return make


def content(data: StageData) -> list[tuple[str, str, bytes]]:
    return [(example.task.value, example.document_id, example.ids.tobytes()) for example in data.next_step()]


@pytest.mark.parametrize("stage", range(4))
def test_the_order_goes_on_from_any_step_as_if_it_had_never_stopped(
    make_data: MakeData, demo_recipe: TrainingRecipe, stage: int
) -> None:
    whole = make_data(demo_recipe, stage)
    steps = [content(whole) for _ in range(7)]
    for stop in np.random.default_rng(stage).integers(0, 7, size=3).tolist():
        first = make_data(demo_recipe, stage)
        for _ in range(stop):
            first.next_step()
        second = make_data(demo_recipe, stage)
        second.load_state_dict(first.state_dict())
        assert [content(second) for _ in range(7 - stop)] == steps[stop:]


def test_every_epoch_reads_every_document_once_in_another_order(make_data: MakeData, demo_recipe: TrainingRecipe) -> None:
    data = make_data(demo_recipe, 2)  # asr, 4 documents a step, 12 in the split
    epochs = [[key for _ in range(3) for _, key, _ in content(data)] for _ in range(3)]
    assert all(Counter(epoch) == Counter(epochs[0]) and len(set(epoch)) == 12 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_or_stage_is_another_order(make_data: MakeData, demo_recipe: TrainingRecipe) -> None:
    other = demo_recipe.model_copy(update={"seed": 99})
    assert content(make_data(demo_recipe, 2)) != content(make_data(other, 2))
    with pytest.raises(MismatchError, match="cannot go on"):
        make_data(other, 2).load_state_dict(make_data(demo_recipe, 2).state_dict())
    with pytest.raises(MismatchError, match="cannot go on"):
        make_data(demo_recipe, 1).load_state_dict(make_data(demo_recipe, 2).state_dict())


def test_tasks_come_in_their_shares_and_evenly() -> None:
    pattern = task_pattern({Task.TEXT: 1.0, Task.REPEAT: 3.0, Task.ASR: 0.5})
    counts = Counter(pattern)
    for task, share in ((Task.TEXT, 1 / 4.5), (Task.REPEAT, 3 / 4.5), (Task.ASR, 0.5 / 4.5)):
        assert abs(counts[task] - share * CYCLE) <= 1
        for end in (10, 100, 500):
            assert abs(pattern[:end].count(task) - share * end) <= 1.5


def test_a_small_cache_changes_nothing_that_is_read(chord_pack: Any) -> None:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    split = read_split(pack, "train", Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts()), [Task.ASR], 512)
    small, large = DocumentReader(pack, 1), DocumentReader(pack, 1 << 24)
    for entry in [*split.entries, *split.entries]:
        for one, other in zip(small.read(entry).turns, large.read(entry).turns, strict=True):
            assert np.array_equal(one.audio, other.audio)  # type: ignore[arg-type]
    assert len(small._cache) == 1
    assert len(large._cache) == 12


def test_padding_is_no_target_and_features_keep_the_order_of_their_examples(
    make_data: MakeData, demo_recipe: TrainingRecipe
) -> None:
    data = make_data(demo_recipe, 3)
    examples = data.next_step()
    batch = collate(examples, 40, pad_id=1, device=torch.device("cpu"))
    for row, example in enumerate(examples):
        length = len(example.ids)
        assert batch.ids_BT[row, :length].tolist() == example.ids.tolist()
        assert not batch.weights_BT[row, length:].any()
        assert not batch.weights_BT[row, 0]
    heard = [example for example in examples if example.audio]
    assert batch.num_patches_A is not None
    assert batch.num_patches_A.tolist() == [int(example.is_heard.sum()) for example in heard]
    assert int(batch.heard_BT.sum()) == int(batch.num_patches_A.sum())
