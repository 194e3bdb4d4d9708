"""Steps of an adaptor stage over a frozen encoder whose frames are kept, over three epochs of a small set, beside those that encode anew.

    .venv/bin/python -m benchmarks.feature_cache
    .venv/bin/python -m benchmarks.feature_cache --model small --clips 200

Each side reads the same documents in the same order, in a process of its own, on one thread; CPU seconds count, reading included.

- batches: ``data.cached_feature_bytes: 0``: pieces are encoded in batches by length, none is kept.
- one by one: 1: pieces are encoded alone, and there is no room for any. Its losses must be those of the next side, bit for bit.
- kept: all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass

import torch

from benchmarks.own_process import in_own_process
from benchmarks.speech_pack import read_clips, write_speech_pack
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.config import model_config
from training.data import Batching, DocumentReader, stage_data
from training.device import exact_arithmetic
from training.documents import read_split
from training.examples import ExampleMaker
from training.feature_cache import FeatureCache
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import Task, TrainingRecipe
from training.trainer import StageTrainer

SIDES = {"batches": 0, "one by one": 1, "kept": 1 << 30}
EPOCHS = 3
RATE = {"lr": 1e-3}


@dataclass(frozen=True)
class Measured:
    """CPU seconds of each epoch's steps, and the loss of every step."""

    epoch_cpu_s: list[float]
    losses: list[float]


def recipe_of(model: str, length: int, steps: int) -> TrainingRecipe:
    """The adaptor alone learns ASR."""
    stage = {
        "name": "align",
        "kind": "pretrain",
        "tasks": {"asr": 1},
        "train": {"adaptor": RATE},
        "vocabulary": "text",
        "sequence_length": length,
        "sequences_per_step": 1,
        "steps": steps,
    }
    plain = {"model": model, "threads": 1, "prompts": {"asr": "", "tts": ""}, "stages": [stage]}
    return TrainingRecipe.model_validate(plain)


def align(model_name: str, length: int, most_bytes: int, pack_uri: str, tokenizer_uri: str) -> Measured:
    """Three epochs of the pack's documents."""
    tokenizer, pack = Tokenizer.open(tokenizer_uri), Pack.open(pack_uri)
    recipe = recipe_of(model_name, length, 1)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)
    split = read_split(pack, "train", layouts, [Task.ASR], length)
    steps = round(EPOCHS * int(split.num_tokens[Task.ASR].sum()) / length)
    recipe = recipe_of(model_name, length, steps)
    (stage,) = recipe.stages
    with exact_arithmetic(1):
        torch.manual_seed(0)
        config, vocabulary = model_config(model_name), tokenizer.vocabulary
        model = StepAudio2(config, vocabulary.num_rows, vocabulary.text_size)
        cache = FeatureCache(most_bytes) if most_bytes else None
        if cache is not None:
            cache.belong_to(model.encoder)
        reader = DocumentReader(pack, recipe.data.cached_audio_bytes)
        maker = ExampleMaker(layouts, stage.loss_weights)
        data = stage_data(split, reader, maker, recipe, stage, Batching(config.encoder.num_mels, vocabulary.pad, cache))
        trainer = StageTrainer(model, stage, vocabulary)
        epochs, losses = [0.0] * EPOCHS, list[float]()
        for step in range(steps):
            began = time.process_time()
            losses.append(trainer.train_step(data.next_step())["loss"])
            epochs[step * EPOCHS // steps] += time.process_time() - began
    return Measured(epochs, losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a size of training.config")
    parser.add_argument("--clips", type=int, default=100, help="of read speech")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = write_speech_pack(folder, read_clips(["read"], options.clips), with_audio=True)
        found: dict[str, Measured] = {}
        for name, most_bytes in SIDES.items():
            found[name], _ = in_own_process(align, options.model, options.length, most_bytes, *where)
    steps = len(found["kept"].losses)
    print(f"{options.model}, {options.clips} clips, {steps} steps of {options.length} tokens in {EPOCHS} epochs")
    print("| encoder | CPU s of epochs 1, 2, 3 | steps a CPU second | against batches |\n|---|---|---|---|")
    base = sum(found["batches"].epoch_cpu_s)
    for name, side in found.items():
        whole = sum(side.epoch_cpu_s)
        epochs = ", ".join(f"{cpu_s:.2f}" for cpu_s in side.epoch_cpu_s)
        print(f"| {name} | {epochs} | {steps / whole:.2f} | {base / whole:.2f} times |")
    print(f"losses one by one and kept are equal bit for bit: {found['one by one'].losses == found['kept'].losses}")


if __name__ == "__main__":
    main()
