from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from manifests.errors import RequestError
from manifests.recipes import resolved
from training.cli import app
from training.recipe import TrainingRecipe


@pytest.fixture
def recipe_file(demo_recipe: TrainingRecipe, tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(resolved(demo_recipe)))
    return str(path)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_plan_says_what_each_stage_trains_and_on_how_much(chord_pack: Any, recipe_file: str) -> None:
    options = ("--recipe", recipe_file, "--pack", chord_pack.pack, "--tokenizer", chord_pack.tokenizer)
    plan = json.loads(invoke("plan", *options, "--json").stdout)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    (asr,) = stages["align"]["tasks"].values()
    assert (asr["share"], asr["documents"], asr["refused"]) == (1.0, 12, {})
    assert asr["passes"] == pytest.approx(stages["align"]["tokens"] / asr["available_tokens"], rel=0.01)
    assert stages["align"]["rates"] == {"adaptor": [3e-3, 3e-4]}
    assert 0 < stages["align"]["trainable_parameters"] < stages["tts"]["trainable_parameters"] < plan["parameters"]
    assert all(stage["wall_hours"] > 0 and stage["memory"]["peak"] > 0 for stage in stages.values())
    shown = invoke("plan", *options, "--machine", "h100x1").stdout
    assert "GPU-hours" in shown
    for stage in stages:
        assert stage in shown


def test_plan_without_a_pack_says_what_needs_none() -> None:
    plan = json.loads(invoke("plan", "--recipe", "step_audio_2", "--machine", "h100x8", "--json").stdout)
    assert plan["assumed"]["utterance_s"] == 10
    assert [stage["steps"] for stage in plan["stages"]] == [11_921, 30_518, 95_368, 23_842]
    with pytest.raises(RequestError, match="--pack and --tokenizer go together"):
        invoke("plan", "--recipe", "step_audio_2", "--pack", "./pack")
    with pytest.raises(RequestError, match="machine 'abacus' is unknown"):
        invoke("plan", "--recipe", "step_audio_2", "--machine", "abacus")


def test_plan_says_that_a_tail_is_not_heard(make_pack: Any, recipe_file: str, demo_recipe: TrainingRecipe) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 400_100).astype(np.float32)
    spoken = [("a", "so la", noise[:8000]), ("b", "la mi", noise[:8000]), ("long", "so", noise)]
    pack = make_pack({"train": spoken})
    value = resolved(demo_recipe)
    for stage in value["stages"][1:]:  # long enough for 25 s
        stage["sequence_length"] = 1024
    Path(recipe_file).write_text(yaml.safe_dump(value))
    options = ("--recipe", recipe_file, "--pack", pack.pack, "--tokenizer", pack.tokenizer)
    stages = {stage["name"]: stage for stage in json.loads(invoke("plan", *options, "--json").stdout)["stages"]}
    assert stages["align"]["tasks"]["asr"]["tails"] == 1
    assert "asr dropped: 1 tail of audio" in invoke("plan", *options).stdout


def test_plan_refuses_a_task_that_no_document_serves(
    make_pack: Any, make_recipe: Callable[..., TrainingRecipe], recipe_file: str
) -> None:
    quiet = make_pack({"train": [("k", "so la", np.zeros(300, dtype=np.float32))]})
    with pytest.raises(RequestError, match=r"task 'ctc' \(refused: \{'audio_too_short': 1\}\)"):
        invoke("plan", "--recipe", recipe_file, "--pack", quiet.pack, "--tokenizer", quiet.tokenizer)


def test_run_goes_to_a_stage_and_on_from_there(chord_pack: Any, recipe_file: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    options = (
        "run",
        "--recipe",
        recipe_file,
        "--pack",
        chord_pack.pack,
        "--tokenizer",
        chord_pack.tokenizer,
        "--run",
        run,
        "--json",
    )
    first = json.loads(invoke(*options, "--until", "encoder_ctc").stdout)
    assert (first["steps"], first["is_finished"], first["swap_rise"]) == (6, False, None)
    last = json.loads(invoke(*options, "--resume").stdout)
    assert (last["steps"], last["is_finished"]) == (18, True)
    assert set(last["last_losses"]) == {"encoder_ctc", "decoder_text", "align", "tts"}


@pytest.mark.parametrize("module", ["training.cli", "training.recipe"])
def test_command_and_recipe_are_light_to_import(module: str) -> None:
    program = (
        f"import sys, {module}; print([name for name in ('torch', 'ray', 'transformers', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
