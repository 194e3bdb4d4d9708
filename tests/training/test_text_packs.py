"""Plain text of a book as lines, through pack and trainer, without any audio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.packs import Pack
from manifests.recipes import load_recipe
from manifests.store import Store
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from tokenization.artifact import CodecFacts, Tokenizer, write_tokenizer
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.batches import Batch
from training.data import Batching, DocumentReader, stage_data
from training.examples import ExampleMaker
from training.inputs import Inputs, open_inputs
from training.journal import read_rows
from training.plan import make_plan
from training.recipe import Task, TrainingRecipe, load_training_recipe
from training.run import train

WORDS = ["the", "sea", "was", "calm", "and", "a", "boat", "lay", "still", "until", "wind", "rose", "out", "of", "west", "carried"]


@pytest.fixture(scope="module")
def text_pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(Pack, tokenizer) of 300 lines of 4 to 20 words."""
    folder, draw = tmp_path_factory.mktemp("book"), np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS, draw.integers(4, 20))) for _ in range(300)]
    (folder / "book.txt").write_text("\n".join(lines))
    text = TextTokenizer.train(lines, 300)
    facts = CodecFacts("s3", "absent.onnx", "c0de" * 4, 25.0, 6561, 16_000)
    store = Store(str(folder / "tokenizer"))
    write_tokenizer(store, text, Vocabulary.small(text.vocab_size), Ratio(), facts, {})
    made = pack(str(folder / "book.txt"), str(folder / "pack"), load_recipe(PackRecipe, "pipeline", "text"), store.uri)
    return made.pack_uri, store.uri


@pytest.fixture(scope="module")
def inputs(text_pack: tuple[str, str]) -> Inputs:
    recipe = load_training_recipe("text")
    return open_inputs(recipe.model_copy(update={"model": "micro"}), *text_pack)


def test_the_shipped_recipe_plans_texts_and_repeats_of_plain_lines(inputs: Inputs) -> None:
    (stage,) = make_plan(inputs).stages
    assert {name: task.documents for name, task in stage.tasks.items()} == {"text": 300, "repeat": 300}
    assert stage.tasks["repeat"].share >= 0.3
    assert stage.skipped == ()


def test_at_least_three_tenths_of_the_tokens_repeat_what_stands_between_the_wrappers(
    inputs: Inputs, text_pack: tuple[str, str]
) -> None:
    (stage,) = inputs.recipe.stages
    vocabulary = Tokenizer.open(text_pack[1]).vocabulary
    maker = ExampleMaker(inputs.layouts, stage.loss_weights)
    reader = DocumentReader(Pack.open(text_pack[0]), 1)
    data = stage_data(inputs.split(stage), reader, maker, inputs.recipe, stage, Batching(40, vocabulary.pad))
    tokens = {Task.TEXT: 0, Task.REPEAT: 0}
    pad = vocabulary.special("<audio_patch_pad>")
    for batch in (batch for _ in range(6) for batch in data.next_step()):
        assert isinstance(batch, Batch)
        for row, lengths in enumerate(batch.spans.rows):
            start = 0
            for length in lengths:
                ids = batch.ids_BT[row, start : start + length].tolist()
                tokens[Task.REPEAT if ids[0] == vocabulary.audio_start else Task.TEXT] += length
                if ids[0] == vocabulary.audio_start:
                    end = ids.index(vocabulary.audio_end)
                    assert [token for token in ids[1:end] if token != pad] == ids[end + 1 : -1]
                start += length
    assert tokens[Task.REPEAT] / sum(tokens.values()) >= 0.3


def test_a_run_over_text_alone_learns_to_write(
    text_pack: tuple[str, str], make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    shipped = load_training_recipe("text").model_dump(mode="json")
    stage: dict[str, Any] = {**shipped["stages"][0], "steps": 20, "warmup_steps": 2, "sequence_length": 256}
    stage["train"] = {group: {"lr": 1e-2} for group in stage["train"]}  # for a model so small, and so few steps
    run = str(tmp_path / "run")
    train(make_recipe([stage]), *text_pack, run)
    losses = [row["loss_text"] for row in read_rows(run)]
    assert losses[0] == pytest.approx(np.log(300), rel=0.2)
    assert losses[-1] < losses[0] - 0.3
