"""How long training stands still for a checkpoint: written by a thread beside it, and written while it waits, in one run.

    .venv/bin/python -m benchmarks.checkpoint_stall
    .venv/bin/python -m benchmarks.checkpoint_stall --model 0.5b --rounds 2

Decoder, embedding and head are trained, with the moments of AdamW; encoder and adaptor are frozen. Each round saves once either way, and
works (products of matrices in one thread) beside the thread until it is done: that says what the thread takes of the steps. The
first round is not counted: in it the kernel hands out the memory of the copies.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tokenization.vocabulary import Vocabulary
from training.checkpoint import Identity, Progress, complete
from training.config import model_config
from training.device import Arithmetic, exact_arithmetic
from training.model import StepAudio2
from training.ranks import ALONE
from training.recipe import TrainingRecipe
from training.saver import Saver
from training.tensors import POLICY, run_tensors
from training.trainer import StageTrainer

SIDE, PRODUCTS = 512, 20  # of the matrices that a piece of work multiplies
RATE = {"lr": 1e-4}
LIMIT = 0.5  # of the seconds of a save, that training may stand still where a thread writes


@dataclass(frozen=True)
class Round:
    """Seconds."""

    waiting_s: float  # that training stands still where it waits for the whole save
    standing_s: float  # where a thread writes
    alone_s: float  # of a piece of work with nothing beside it
    beside_s: float  # beside the thread


def main() -> None:
    """Print the figures; exit code 1 where the ratio is past its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with exact_arithmetic(1), tempfile.TemporaryDirectory() as folder:
        num_bytes, rounds = measure(options.model, options.rounds, folder)
    waiting, standing = (statistics.median(getattr(r, name) for r in rounds) for name in ("waiting_s", "standing_s"))
    slower = statistics.median(r.beside_s / r.alone_s for r in rounds)
    print(f"model {options.model}, a checkpoint of {num_bytes / 1e6:,.0f} MB, median of {len(rounds)} rounds")
    print(
        f"training stands still {waiting:.3f} s where it waits, {standing:.3f} s where a thread writes: {standing / waiting:.3f} of it"
    )
    print(f"work beside the thread takes {slower:.2f} times as long as alone")
    if standing / waiting > LIMIT:
        raise SystemExit(f"past the limit of {LIMIT}")


def measure(model: str, num_rounds: int, folder: str) -> tuple[int, list[Round]]:
    """Bytes of the run's tensors, and what each counted round took."""
    recipe, trainer = trained(model)
    parts = {POLICY: trainer}
    identity, rounds = Identity("", "", "", "", "", ""), []
    with Saver(folder, recipe, identity, Arithmetic.of(recipe, ALONE.device, 1), ALONE) as saver:
        for step in range(2, 2 * num_rounds + 4, 2):
            alone_s = statistics.median(seconds(work) for _ in range(9))
            saver.save(parts, progress(step))
            waiting_s = seconds(saver.wait)  # all but the copying, of which who waits has no need
            began = time.perf_counter()
            saver.save(parts, progress(step + 1))
            standing_s = time.perf_counter() - began
            beside = [seconds(work)]
            while progress(step + 1).name not in complete(folder):
                beside.append(seconds(work))
            saver.wait()
            rounds.append(Round(waiting_s, standing_s, alone_s, statistics.mean(beside)))
    return sum(tensor.nbytes for tensor in run_tensors(parts, ALONE).values()), rounds[1:]


def trained(model: str) -> tuple[TrainingRecipe, StageTrainer]:
    """A model of that size whose optimizer has made a step."""
    rates = {"decoder": RATE, "embedding": RATE, "head": RATE}
    packed = {"sequence_length": 256, "sequences_per_step": 1, "steps": 1000}
    stage = {"name": "main", "kind": "pretrain", "tasks": {"tts": 1}, "train": rates, **packed}
    recipe = TrainingRecipe.model_validate({"model": model, "stages": [stage]})
    vocabulary = Vocabulary.small(4096)
    torch.manual_seed(0)
    trainer = StageTrainer(
        StepAudio2(model_config(model), vocabulary.num_rows, vocabulary.text_size), recipe.stages[0], vocabulary
    )
    for parameter in trainer.trained.values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return recipe, trainer


def progress(step: int) -> Progress:
    nothing = {
        "data": {},
        "watch": {},
        "wall": {},
        "first_loss": 0.0,
        "last_loss": 0.0,
        "stage_wall_s": 0.0,
        "stage_stall_s": 0.0,
    }
    return Progress(stage_number=0, stage="main", step=step, global_step=step, **nothing)


def work() -> None:
    x = torch.ones(SIDE, SIDE)
    for _ in range(PRODUCTS):
        x = torch.tanh(x @ x)


def seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
