"""Every task in one stage, from the shards of a pack with documents of every kind to steps of the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.packs import Pack
from tests.training import made_documents as documents
from tests.training.made_documents import Made, turn
from tokenization.artifact import Tokenizer
from training.documents import read_split
from training.examples import ExampleMaker
from training.inputs import open_inputs
from training.journal import read_rows
from training.layouts import Layouts
from training.plan import make_plan
from training.prompts import Prompts
from training.recipe import LossWeights, Task, TrainingRecipe
from training.run import train

PACKED = [
    documents.clip("so la", 9000, 14, key="clip", caption_en="loud", caption_zh="大声"),
    documents.clip("mi", 8000, 13, key="other"),
    documents.pair(turn("so la", 9000, 14, 1, language="fr"), turn("mi re", 8000, 12, 2, language="en"), key="pair"),
    documents.continuation("so", "la mi", "re", "do", key="continuation"),
    documents.conversation("so", "la mi", "re", "do", "ti", key="conversation"),
    documents.made("text", [turn("so la mi re do ti")], key="text"),
]


@pytest.fixture(scope="module")
def mixed_pack(make_pack: Callable[..., Any]) -> Any:
    return make_pack({"train": [made.tarred for made in PACKED]}, vocab_size=400)


def test_what_is_read_from_shards_gives_the_examples_of_the_documents_packed(mixed_pack: Any) -> None:
    pack, tokenizer = Pack.open(mixed_pack.pack), Tokenizer.open(mixed_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())
    split = read_split(pack, "train", layouts, list(Task), 120)
    maker, made = ExampleMaker(layouts, LossWeights()), {packed.row["key"]: packed for packed in PACKED}
    assert all(split.eligible[task] for task in Task)
    for task in Task:
        for place, length in zip(split.eligible[task], split.num_tokens[task], strict=True):
            entry = split.entries[place]
            packed: Made = made[entry.key]
            read = maker.make(task, entry, pack.read(entry.shard, entry.key))
            assert len(read.ids) == length <= 120
            assert read.ids.tolist() == maker.make(task, entry, packed.document).ids.tolist()


def test_a_stage_of_all_tasks_trains(mixed_pack: Any, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path) -> None:
    rate = {"lr": 1e-3}
    tasks = [task for task in Task if task is not Task.CTC]
    stage = {
        "name": "main",
        "kind": "pretrain",
        "tasks": dict.fromkeys((task.value for task in tasks), 1.0),
        "train": dict.fromkeys(("adaptor", "decoder", "embedding", "head"), rate),
        "sequence_length": 256,
        "sequences_per_step": 8,
        "steps": 3,
    }
    recipe = make_recipe([stage], prompts={})
    plan = make_plan(open_inputs(recipe, mixed_pack.pack, mixed_pack.tokenizer))
    assert plan.stages[0].tasks["captioning"].documents == 2
    result = train(recipe, mixed_pack.pack, mixed_pack.tokenizer, str(tmp_path / "run"))
    assert result.is_finished
    rows = list(read_rows(str(tmp_path / "run")))
    assert len(rows) == 3
    for row in rows:
        assert all(row[f"count_{kind}"] > 0 for kind in ("text", "audio_code", "tts_pad", "audio_pad", "special")), row
        assert math.isfinite(row["loss"])


def test_audio_of_several_pieces_trains(make_pack: Any, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path) -> None:
    long = [documents.clip(text, 420_000 + seed, 0, key=f"long{seed}") for seed, text in enumerate(("so la", "mi re"))]
    pack = make_pack({"train": [made.tarred for made in long]})
    stage = {
        "name": "hear",
        "kind": "pretrain",
        "tasks": {"asr": 1.0},
        "train": {"adaptor": {"lr": 1e-3}, "decoder": {"lr": 1e-3}},
        "sequence_length": 400,
        "sequences_per_step": 1,
        "steps": 2,
    }
    train(make_recipe([stage]), pack.pack, pack.tokenizer, str(tmp_path / "run"))
    rows = list(read_rows(str(tmp_path / "run")))
    assert [row["count_special"] for row in rows] == [1, 1]
    assert all(math.isfinite(row["loss"]) for row in rows)
