from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from manifests.errors import MismatchError
from manifests.recipes import resolved
from training import checkpoint
from training.cli import app
from training.device import Arithmetic
from training.journal import read_rows
from training.recipe import TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS

# Runs in processes of their own: seconds each, so left out of `make check`.
pytestmark = pytest.mark.slow

# Runs `stepwell train` and kills itself at the n-th call of a function: arguments of the command, the function, n. A thread that
# comes to the m-th call of another function (none: "-") stays there.
DYING = """
import importlib, os, signal, sys, time
from training.cli import app
*arguments, place, count, stuck_place, stuck_count = sys.argv[1:]
def at(place, left, do):
    module, *path, name = place.split(":")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    whole = getattr(owner, name)
    def counted(*args, **kwargs):
        nonlocal left
        if left == 0:
            do()
        left -= 1
        return whole(*args, **kwargs)
    setattr(owner, name, counted)
at(place, int(count), lambda: os.kill(os.getpid(), signal.SIGKILL))
if stuck_place != "-":
    at(stuck_place, int(stuck_count), lambda: time.sleep(600))
app(arguments)
"""
# Where a kill falls: with a gradient half summed, between a step and its row of metrics, between the weights of a checkpoint
# and its state, before the whole draft is durable and has its name, behind that with old ones still there. The last three are in a
# thread, with steps going on beside it.
MIDST = "training.trainer:StageTrainer:_work_through"
WRITING = "training.journal:Journal:write"
STATE = "training.checkpoint:json_bytes"
PUBLISHING = "training.checkpoint:_sync"
DROPPING = "training.checkpoint:drop_old"


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., Any]) -> TrainingRecipe:
    """A stage by CTC and one of packed sequences with all kinds of tokens, four steps of two micro-batches each."""
    encoder, _, _, spoken = curriculum_of(4)
    return make_recipe([{**encoder, "micro_batches": 2}, spoken], checkpoint_every=2, keep_checkpoints=1)


@pytest.fixture(scope="module")
def unbroken(chord_pack: Any, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = str(tmp_path_factory.mktemp("unbroken") / "run")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, run)
    return run


def command(chord_pack: Any, recipe: TrainingRecipe, folder: Path, *more: str) -> list[str]:
    """Arguments of `stepwell train` for the recipe in ``folder / "run"``."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved(recipe)))
    inputs = ["--recipe", str(folder / "recipe.yaml"), "--pack", chord_pack.pack, "--tokenizer", chord_pack.tokenizer]
    return ["run", *inputs, "--run", str(folder / "run"), *more]


def die_at(place: str, count: int, arguments: list[str], stuck: tuple[str, int] = ("-", 0)) -> None:
    points = [place, str(count), stuck[0], str(stuck[1])]
    process = subprocess.run([sys.executable, "-c", DYING, *arguments, *points], capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]


def held(run: str) -> list[str]:
    """What lies among the checkpoints, drafts of dead ones too."""
    return sorted(os.listdir(os.path.join(run, checkpoint.FOLDER)))


def drafts(run: str) -> list[str]:
    """Of checkpoints that were under way."""
    return [name.rpartition(".")[0] for name in held(run) if name.startswith(".")]


def curve(run: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCK_COLUMNS} for row in read_rows(run)]


def tensors(run: str) -> dict[str, torch.Tensor]:
    """Every tensor of the run's newest checkpoint: weights, moments, random state."""
    from torch.distributed.checkpoint import filesystem, state_dict_loader

    weights = os.path.join(run, checkpoint.FOLDER, checkpoint.complete(run)[-1], checkpoint.WEIGHTS)
    held = filesystem.FileSystemReader(weights).read_metadata().state_dict_metadata
    found = {key: torch.zeros(entry.size, dtype=entry.properties.dtype) for key, entry in held.items()}
    state_dict_loader.load(found, checkpoint_id=weights, no_dist=True)
    return found


# Four checkpoints, at steps 2 and 4 of each stage. A step by CTC sums three or four micro-batches (audio of like lengths),
# one of the other stage two: the first kill falls behind the first checkpoint that is sure to be whole (a stage's end waits for
# its last), the second (counted in the resumed process) further on, or at the same point again.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((MIDST, 18), (MIDST, 1)),
        ((WRITING, 4), (WRITING, 1)),
        ((STATE, 1), (STATE, 1)),
        ((PUBLISHING, 1), (PUBLISHING, 1)),
        ((DROPPING, 0), (DROPPING, 1)),
    ],
)
def test_a_run_that_is_killed_twice_is_the_unbroken_run(
    first: tuple[str, int], second: tuple[str, int], unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    die_at(*first, command(chord_pack, recipe, tmp_path))
    assert checkpoint.complete(run), "killed before the first checkpoint; the test says nothing"
    die_at(*second, command(chord_pack, recipe, tmp_path, "--resume"))
    assert train(recipe, chord_pack.pack, chord_pack.tokenizer, run, resume=True).is_finished
    assert_same_end(run, unbroken)


def assert_same_end(run: str, unbroken: str) -> None:
    """The same metrics, newest tensors and checkpoints."""
    assert curve(run) == curve(unbroken)
    ours, theirs = tensors(run), tensors(unbroken)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert held(run) == held(unbroken)


def test_a_run_that_is_killed_twice_while_a_checkpoint_is_under_way_is_the_unbroken_run(
    unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    # The third save, at step 2 of the second stage, never ends; step 3 is trained beside it, and its row is where it dies.
    die_at(WRITING, 6, command(chord_pack, recipe, tmp_path), stuck=(PUBLISHING, 2))
    assert drafts(run) == [".01-tts-0000002"]
    die_at(WRITING, 2, command(chord_pack, recipe, tmp_path, "--resume"), stuck=(PUBLISHING, 0))
    assert drafts(run) == [".01-tts-0000002"] * 2
    assert checkpoint.complete(run)[-1] == "00-encoder_ctc-0000004"
    assert len(curve(run)) == 6
    assert train(recipe, chord_pack.pack, chord_pack.tokenizer, run, resume=True).is_finished
    assert_same_end(run, unbroken)


@pytest.fixture
def begun(chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path) -> str:
    """A run that is at the end of its first stage."""
    run = str(tmp_path / "run")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, run, until="encoder_ctc")
    return run


def test_other_threads_are_refused_and_may_be_allowed(
    begun: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    other, before = recipe.model_copy(update={"threads": 2}), curve(begun)
    with pytest.raises(MismatchError, match=r"^checkpoint '00-encoder_ctc-0000004' was computed with threads 1 \(here 2\): .*"):
        train(other, chord_pack.pack, chord_pack.tokenizer, begun, resume=True)
    assert curve(begun) == before
    allowed = command(chord_pack, other, tmp_path, "--resume", "--allow-inexact")
    said = CliRunner().invoke(app, allowed, catch_exceptions=False).stderr
    assert "was computed with threads 1 (here 2): from here on the run is not bit for bit" in said
    assert curve(begun)[:4] == before
    newest = checkpoint.load_state(os.path.join(begun, checkpoint.FOLDER, checkpoint.complete(begun)[-1]))
    assert (newest.global_step, newest.arithmetic.threads) == (8, 2)


def test_what_a_checkpoint_was_computed_with_is_compared_whole(recipe: TrainingRecipe) -> None:
    here = Arithmetic.of(recipe, torch.device("cpu"), 1)
    assert asdict(here) | {"device": ""} == {
        "torch_version": torch.__version__, "device": "", "dtype": "fp32", "threads": 1, "recompute": False, "compile": False,
        "world": 1,
    }  # fmt: skip
    here.check(here, "checkpoint 'a'", allow_inexact=False)
    others = {
        "torch_version": "2.7",
        "device": "NVIDIA H100",
        "dtype": "bfloat16",
        "threads": 8,
        "recompute": True,
        "compile": True,
        "world": 4,
    }
    for name, value in others.items():
        with pytest.raises(MismatchError, match=rf"^checkpoint 'a' was computed with {name} {value} \(here [^)]*\): "):
            here.check(replace(here, **{name: value}), "checkpoint 'a'", allow_inexact=False)


def test_a_checkpoint_that_the_summary_names_and_that_is_gone_is_no_new_start(
    begun: str, chord_pack: Any, recipe: TrainingRecipe
) -> None:
    before, folder = curve(begun), Path(begun) / checkpoint.FOLDER
    shutil.rmtree(folder / "00-encoder_ctc-0000004")
    named = r"has no checkpoint '00-encoder_ctc-0000004', which its summary.json names; bring it back"
    for resume in (True, False):
        with pytest.raises(MismatchError, match=named):  # not from the one before it either
            train(recipe, chord_pack.pack, chord_pack.tokenizer, begun, resume=resume)
    shutil.rmtree(folder)
    for resume in (True, False):
        with pytest.raises(MismatchError, match=named):
            train(recipe, chord_pack.pack, chord_pack.tokenizer, begun, resume=resume)
    assert curve(begun) == before
