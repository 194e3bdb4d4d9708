from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from manifests.errors import RequestError, WorkError
from manifests.recipes import resolved
from tests.training import made_documents as documents
from training.cli import app
from training.examples import ExampleMaker
from training.recipe import LossWeights, Task, TrainingRecipe
from training.show import stretches_of


def invoke(*arguments: str) -> str:
    return CliRunner().invoke(app, ["show", *arguments], catch_exceptions=False).stdout


@pytest.fixture
def options(chord_pack: Any) -> tuple[str, ...]:
    return ("--pack", chord_pack.pack, "--tokenizer", chord_pack.tokenizer)


def test_an_example_is_shown_a_line_a_stretch(options: tuple[str, ...], make_recipe: Callable[..., Any]) -> None:
    lines = invoke(*options, "--task", "asr", "--index", "3").splitlines()
    shown = json.loads(invoke(*options, "--task", "asr", "--index", "3", "--json"))
    assert lines[0].startswith("asr 3 of 12: document d03, ")
    patches = sum(shown["is_heard"])
    rows = [line.split(maxsplit=3)[1:] for line in lines[2:]]
    assert rows[0] == ["text", "0", '"请记录下你所听到的语音内容。"']
    assert rows[1] == ["special", "0", "<audio_start>"]
    assert rows[2] == ["special", "0", f"<audio_patch> x {patches}"]
    assert rows[3] == ["special", "0", "<audio_end>"]
    assert rows[4][:2] == ["text", "1"]
    assert set(json.loads(rows[4][2]).split()) <= {"so", "la", "mi", "re", "do", "ti"}
    assert rows[5] == ["special", "1", "<|endoftext|>"]
    assert len(shown["ids"]) == len(shown["weights"]) == sum(stretch["num_tokens"] for stretch in shown["stretches"])
    assert [stretch["position"] for stretch in shown["stretches"]][1] == shown["stretches"][0]["num_tokens"]
    assert shown["num_examples"] == 12


def test_a_stage_of_a_recipe_has_its_prompts_weights_and_length(
    options: tuple[str, ...], demo_recipe: TrainingRecipe, tmp_path: Path
) -> None:
    values = resolved(demo_recipe)
    values["stages"][3] |= {"loss_weights": {"audio_code": 0.25}, "sequence_length": 20}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump(values))
    shown = json.loads(invoke(*options, "--task", "tts", "--recipe", str(recipe), "--stage", "tts", "--json"))
    assert shown["stretches"][0]["text"].strip('"').split()[0] in {"so", "la", "mi", "re", "do", "ti"}  # no prompt in front
    assert {s["weight"] for s in shown["stretches"] if s["kind"] == "audio_code"} == {0.25}
    assert shown["num_examples"] < 12
    with pytest.raises(RequestError, match=r"stage 'none' is not in the recipe; its stages are encoder_ctc, .*"):
        invoke(*options, "--task", "tts", "--recipe", str(recipe), "--stage", "none")
    with pytest.raises(RequestError, match="give --recipe"):
        invoke(*options, "--task", "tts", "--stage", "tts")


def test_an_index_past_the_examples_is_refused_with_what_is_not_among_them(options: tuple[str, ...]) -> None:
    with pytest.raises(RequestError, match="index 12 is not among the 12 examples of 'asr'"):
        invoke(*options, "--task", "asr", "--index", "12")
    with pytest.raises(RequestError, match=r"0 examples of 's2tt' in split 'train' \(refused: \{'not_offered': 12\}\)"):
        invoke(*options, "--task", "s2tt")


def test_a_damaged_shard_is_named(chord_pack: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(chord_pack.pack, tmp_path / "pack")
    (shard,) = copy.glob("shards/train-*.tar")
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(WorkError, match=r"in shard 'train-000000\.tar' of pack .+ cannot be read"):
        invoke("--pack", str(copy), "--tokenizer", chord_pack.tokenizer, "--task", "asr")


def test_tokens_that_are_no_text_have_their_names() -> None:
    made = documents.clip('say "hi"', num_codes=6)
    layouts = documents.layouts()
    example = ExampleMaker(layouts, LossWeights()).make(Task.TTS, made.entry(), made.document)
    shown = stretches_of(example, documents.BYTES, layouts.vocabulary)
    assert shown[0].text == json.dumps('say "hi"')
    assert shown[1].text == "<tts_start>"
    codes = made.document.turns[0].codes
    assert codes is not None
    assert shown[3].text == " ".join(f"<audio_{code}>" for code in codes[:4])
    assert next(stretch.text for stretch in shown if stretch.kind == "audio_pad") == "<audio_6561> x 2"
    assert shown[-1].text == "<tts_end> <|endoftext|>"
