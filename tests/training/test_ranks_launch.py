"""The command over ranks: torchrun and Ray Train come to what one process comes to; however ranks end, all do, with one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.launched import Launched
from training.journal import METRICS, read_rows

pytestmark = pytest.mark.slow

LIMIT_S = 300.0
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
SAME = {"loss": 1e-5, "grad_norm": 1e-4, "tokens": 0.0, "lr": 0.0}  # by how much a row may differ


@dataclass(frozen=True)
class Command:
    """``stepwell train run`` on a recipe of two stages, in a folder of its own."""

    folder: Path
    pack: Any
    recipe: Path

    def arguments(self, run: str, *more: str, recipe: Path | None = None) -> list[str]:
        where = ["--pack", self.pack.pack, "--tokenizer", self.pack.tokenizer, "--run", str(self.folder / run)]
        return ["stepwell", "train", "run", "--recipe", str(recipe or self.recipe), *where, *more]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=LIMIT_S)

    def rows(self, run: str) -> list[dict[str, Any]]:
        return list(read_rows(str(self.folder / run)))


@pytest.fixture(scope="module")
def command(
    chord_pack: Any, curriculum_of: Callable[[int], list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Command:
    folder = tmp_path_factory.mktemp("launch")
    first, *_, last = curriculum_of(4)
    write_recipe(folder / "recipe.yaml", [first, {**last, "measures": ["asr", "text"], "measure_swap": True}])
    return Command(folder, chord_pack, folder / "recipe.yaml")


def write_recipe(path: Path, stages: list[dict[str, Any]]) -> Path:
    plain = {
        "model": "micro",
        "seed": 3,
        "threads": 1,
        "prompts": {"asr": "", "tts": ""},
        "checkpoint_every": 2,
        "stages": stages,
    }
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def alone(command: Command) -> list[dict[str, Any]]:
    done = command.run("-m", *command.arguments("alone"))
    assert done.returncode == 0, done.stderr
    return command.rows("alone")


def same_rows(command: Command, run: str, alone: list[dict[str, Any]]) -> None:
    """Steps, and what is measured on held-out splits behind them: every rank evaluates a model of which it has a part."""
    found = command.rows(run)
    assert [(row["stage"], row["step"], row.get("measured")) for row in found] == [
        (row["stage"], row["step"], row.get("measured")) for row in alone
    ]
    for row, other in zip(found, alone, strict=True):
        tolerances = SAME if "loss" in other else {name: 1e-5 for name, value in other.items() if isinstance(value, float)}
        for column, tolerance in tolerances.items():
            assert row[column] == pytest.approx(other[column], rel=tolerance), (row["stage"], row["step"], column)
    swaps = [json.loads((command.folder / name / "evaluation.json").read_text()) for name in (run, "alone")]
    assert swaps[0]["swap_rise"] == pytest.approx(swaps[1]["swap_rise"], rel=1e-4, abs=1e-6)


def test_torchrun_comes_to_what_one_process_comes_to(command: Command, alone: list[dict[str, Any]]) -> None:
    done = command.run(*TORCHRUN, *command.arguments("torchrun", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["is_finished"]  # one rank prints
    assert done.stderr.count("train encoder_ctc: 4/4 steps") == 1
    same_rows(command, "torchrun", alone)


@pytest.mark.ray
def test_workers_of_ray_come_to_what_one_process_comes_to(command: Command, alone: list[dict[str, Any]]) -> None:
    done = command.run("-m", *command.arguments("ray", "--json", "--workers", "2"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["is_finished"]
    assert "train tts: 4/4 steps" in done.stderr
    assert done.stderr.count("MFU is by a peak of") == 1  # a note of the first rank
    assert not [name for name in os.listdir(command.folder / "ray") if name.startswith(".")]
    same_rows(command, "ray", alone)


def test_a_step_that_does_not_come_out_even_is_one_line(
    command: Command, curriculum_of: Callable[[int], list[dict[str, Any]]]
) -> None:
    """Before anything is written, by whoever launches."""
    (stage,) = curriculum_of(4)[3:]
    recipe = write_recipe(command.folder / "uneven.yaml", [{**stage, "sequences_per_step": 6}])
    said = "error: stage 'tts': sequences_per_step 6 must be a multiple of 2 processes times micro_batches 2; change one of them"
    ray = command.run("-m", *command.arguments("uneven", "--workers", "2", recipe=recipe))
    assert (ray.returncode, ray.stderr.strip()) == (2, said)
    launched = Launched(["-m", *command.arguments("uneven", recipe=recipe)], 2)
    ended = launched.ended(LIMIT_S)
    assert {code for code, _ in ended} == {2}
    assert sorted(err.strip() for _, err in ended) == ["", said]
    assert not (command.folder / "uneven").exists()


@pytest.mark.parametrize(
    ("sent", "to", "said"),
    [(signal.SIGKILL, (1,), "error: rank 0 of 2 has lost another"), (signal.SIGINT, (0, 1), "error: interrupted")],
)
def test_ranks_end_together_with_one_line(
    command: Command, curriculum_of: Callable[[int], list[dict[str, Any]]], sent: signal.Signals, to: tuple[int, ...], said: str
) -> None:
    """One that is killed, and Ctrl-C, which reaches all; what the run saved is there to go on from."""
    stages = curriculum_of(100_000)[3:]
    recipe = write_recipe(command.folder / "long.yaml", stages)
    launched = Launched(["-m", *command.arguments(sent.name, recipe=recipe)], 2)
    until = time.monotonic() + LIMIT_S
    while not list((command.folder / sent.name / "checkpoints").glob("0*")) and time.monotonic() < until:
        time.sleep(0.2)
    for rank in to:
        launched.processes[rank].send_signal(sent)
    ended = launched.ended(60.0)
    assert all(code != 0 for code, _ in ended)
    lines = [line for _, err in ended for line in err.splitlines() if "error" in line.lower() or "Traceback" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(said)
    assert (command.folder / sent.name / METRICS).exists()


def test_workers_under_torchrun_are_refused(command: Command) -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    arguments = [sys.executable, "-m", *command.arguments("both", "--workers", "2")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 2
    assert "under torchrun would start workers in each of its processes" in done.stderr
