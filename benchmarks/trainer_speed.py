"""Steps of our trainer beside ``transformers.Trainer`` on a Qwen2 of the same shape, in one run.

    .venv/bin/python -m benchmarks.trainer_speed
    .venv/bin/python -m benchmarks.trainer_speed --model tiny --rounds 1

Float32, one thread, nothing compiled unless asked for, the same optimizer (fused AdamW) and clipping. Each measurement has a process of its
own, with a step before it that is not counted; the two take turns, and the least CPU seconds of each count. It needs
``accelerate``, which ``transformers.Trainer`` imports.

- full: rows of equal length, every token a target: what the loop, the model and the head cost.
- ragged: documents of one of our packs, made of ``../shared/speech`` (digits and read speech): texts, and texts with made codes (TTS). Once a mix of
  both, and once TTS alone, whose lengths differ less: what padding by length is best at. Ours packs them into sequences; theirs pads, batched by length (``group_by_length``), as many documents a batch as give as many tokens a
  step. It runs one whole mega-batch (50 batches, the longest first). Ours reads the pack while it trains, theirs has all examples in memory.

Then, of the same pack with audio: what waiting for data takes of steps that hear too, and the padding of long sequences.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.own_process import in_own_process
from benchmarks.speech_pack import read_clips, write_speech_pack
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from tokenization.stretches import TokenKind
from training.batches import collate
from training.config import model_config
from training.data import Batching, DocumentReader, PackedData, TaskDocuments, stage_data
from training.device import exact_arithmetic, keep_freed_memory
from training.documents import read_split
from training.examples import Example, ExampleMaker
from training.head import IGNORED
from training.layouts import Layouts
from training.model import StepAudio2
from training.packing import Packer
from training.prefetch import Prefetcher
from training.pretrained import qwen2_config
from training.recipe import PretrainStage, Task, TrainingRecipe
from training.trainer import StageTrainer

MEGA_BATCHES = 50  # batches that transformers sorts by length together
RATE = 1e-3
SPOKEN, TTS = {"tts": 0.8, "text": 0.2}, {"tts": 1.0}  # of tokens
HEARD = {"asr": 0.5, "tts": 0.4, "text": 0.1}
HEARING_STEPS, LONG_ROWS = 10, 40
OURS, LIMITS = "stepwell", {"full": 0.95, "ragged": 1.3, "ragged, TTS alone": 1.3}
TEXT_GROUPS = ("decoder", "embedding", "head")

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What both sides are given."""

    model: str
    tokens: int  # of a step, with padding here and about as many there
    full_length: int
    full_steps: int
    steps: int  # of the ragged documents
    compiles: bool


@dataclass(frozen=True)
class Measured:
    """What a side did and what that took."""

    cpu_s: float
    wall_s: float
    targets: int
    tokens: int
    positions: int
    waited_s: float = 0.0  # for data, of the wall seconds


def recipe_of(model: str, tasks: Mapping[str, float], length: int, rows: int, steps: int) -> TrainingRecipe:
    """One stage that trains all but the audio's parts, at a constant rate."""
    stage = {
        "name": "speed",
        "kind": "pretrain",
        "tasks": dict(tasks),
        "train": {group: {"lr": RATE} for group in TEXT_GROUPS},
        "sequence_length": length,
        "sequences_per_step": rows,
        "steps": steps,
    }
    return TrainingRecipe.model_validate({"model": model, "threads": 1, "stages": [stage]})


def stage_of(recipe: TrainingRecipe) -> PretrainStage:
    """Its only one."""
    (stage,) = recipe.stages
    assert isinstance(stage, PretrainStage)
    return stage


def trainer_of(recipe: TrainingRecipe, tokenizer: Tokenizer, compiles: bool) -> StageTrainer:
    """A model of the recipe's size, drawn, under its stage's rules, in a process as a run on the CPU sets it up."""
    keep_freed_memory()
    vocabulary = tokenizer.vocabulary
    torch.manual_seed(0)
    model = StepAudio2(model_config(recipe.model), vocabulary.num_rows, vocabulary.text_size)
    if compiles:
        model.model.compile_blocks()
    return StageTrainer(model, stage_of(recipe), vocabulary)


def data_of(recipe: TrainingRecipe, pack_uri: str, tokenizer: Tokenizer) -> PackedData:
    """The batches of the recipe's stage, as a run makes them."""
    stage, pack = stage_of(recipe), Pack.open(pack_uri)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)
    split = read_split(pack, "train", layouts, list(stage.tasks), stage.sequence_length)
    reader, maker = DocumentReader(pack, recipe.data.cached_audio_bytes), ExampleMaker(layouts, stage.loss_weights)
    batching = Batching(model_config(recipe.model).encoder.num_mels, tokenizer.vocabulary.pad)
    data = stage_data(split, reader, maker, recipe, stage, batching)
    assert isinstance(data, PackedData)
    return data


def packer_of(documents: Mapping[Task, TaskDocuments], stage: PretrainStage) -> Packer:
    """What fills the stage's sequences, without reading a document."""
    shares = {task.value: stage.tasks[task].share for task in documents}
    longest = max(source.longest for source in documents.values())
    return Packer({task.value: source for task, source in documents.items()}, shares, stage.sequence_length, longest)


def full_rows(setting: Setting, num_ids: int) -> list[np.ndarray]:
    """Drawn ids int64 ``[full_length]``, as many rows as the steps take and one step more."""
    draw, rows = np.random.default_rng(0), setting.tokens // setting.full_length
    return list(draw.integers(0, num_ids, (rows * (setting.full_steps + 1), setting.full_length)))


def ours_full(setting: Setting, tokenizer_uri: str) -> Measured:
    """Steps over rows of one document each."""
    tokenizer, length = Tokenizer.open(tokenizer_uri), setting.full_length
    per_step = setting.tokens // length
    recipe = recipe_of(setting.model, {"text": 1.0}, length, per_step, setting.full_steps + 1)
    rows = [[_whole(ids)] for ids in full_rows(setting, tokenizer.vocabulary.num_rows)]
    with exact_arithmetic(recipe.threads):
        trainer = trainer_of(recipe, tokenizer, setting.compiles)
        steps = [rows[start : start + per_step] for start in range(0, len(rows), per_step)]
        trainer.train_step([collate(steps[0], length, 0, tokenizer.vocabulary.pad)])
        clock = Clock()
        for step in steps[1:]:
            trainer.train_step([collate(step, length, 0, tokenizer.vocabulary.pad)])
        tokens = setting.full_steps * per_step * length
        return clock.measured(tokens - setting.full_steps * per_step, tokens, tokens)


def _whole(ids: np.ndarray) -> Example:
    """A document that is a target from its second position on."""
    weights = np.ones(len(ids), np.float32)
    weights[0] = 0.0
    kinds = np.full(len(ids), TokenKind.TEXT, np.uint8)
    return Example(Task.TEXT, "drawn", ids, kinds, weights, np.arange(len(ids), dtype=np.int32), np.zeros(len(ids), bool))


def theirs_full(setting: Setting, tokenizer_uri: str) -> Measured:
    """The same rows."""
    tokenizer = Tokenizer.open(tokenizer_uri)
    items = [{"input_ids": ids, "labels": ids} for ids in full_rows(setting, tokenizer.vocabulary.num_rows)]
    per_step = setting.tokens // setting.full_length
    return theirs(setting, tokenizer, items[per_step:], per_step, setting.full_steps, by_length=False)


def ours_ragged(setting: Setting, pack_uri: str, tokenizer_uri: str, tasks: Mapping[str, float] = SPOKEN) -> Measured:
    """Steps over packed sequences, read from the pack by a thread beside them, as in a run."""
    tokenizer = Tokenizer.open(tokenizer_uri)
    recipe = recipe_of(setting.model, tasks, setting.tokens, 1, setting.steps + 1)
    with exact_arithmetic(recipe.threads):
        trainer, data = trainer_of(recipe, tokenizer, setting.compiles), data_of(recipe, pack_uri, tokenizer)
        targets = tokens = 0
        with Prefetcher(data, setting.steps + 1) as ahead:
            trainer.train_step(ahead.next_step())
            clock = Clock()
            for _ in range(setting.steps):
                batches = clock.waiting(ahead.next_step)
                row = trainer.train_step(batches)
                targets += sum(len(batch.targets_N) for batch in batches)
                tokens += row["tokens"]
        return clock.measured(targets, tokens, setting.steps * setting.tokens)


def theirs_ragged(setting: Setting, pack_uri: str, tokenizer_uri: str, tasks: Mapping[str, float] = SPOKEN) -> Measured:
    """The same mix of documents, out of enough of them for mega-batches of the full number of batches."""
    tokenizer, num_batches = Tokenizer.open(tokenizer_uri), 4 * MEGA_BATCHES  # fewer are sorted fewer together
    recipe = recipe_of(setting.model, tasks, setting.tokens, 1, 1)
    documents = data_of(recipe, pack_uri, tokenizer).documents
    packer = packer_of(documents, stage_of(recipe))
    placed = [document for _ in range(num_batches) for document in packer.next_sequence().documents]
    examples = [documents[Task(document.task)].example(document.position) for document in placed]
    items = [{"input_ids": e.ids, "labels": np.where(e.weights > 0, e.ids, IGNORED)} for e in examples]
    return theirs(setting, tokenizer, items, len(items) // num_batches, setting.steps, by_length=True)


def theirs(
    setting: Setting, tokenizer: Tokenizer, items: list[dict[str, np.ndarray]], per_step: int, steps: int, *, by_length: bool
) -> Measured:
    """Steps of ``transformers.Trainer`` over ``{input_ids, labels}``, padded to the longest of a batch."""
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = qwen2_config(model_config(setting.model).decoder, tokenizer.vocabulary, torch.float32)
    config = transformers.Qwen2Config.from_dict({**shape, "use_cache": False}, attn_implementation="sdpa")
    model, clock, seen = transformers.Qwen2ForCausalLM(config), Clock(), list[tuple[int, int, int]]()

    def collator(batch: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        padded = {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(item[name]) for item in batch], batch_first=True, padding_value=fill
            )
            for name, fill in (("input_ids", tokenizer.vocabulary.pad), ("labels", IGNORED))
        }
        lengths = torch.tensor([len(item["input_ids"]) for item in batch])
        mask = torch.arange(padded["input_ids"].shape[1]) < lengths[:, None]
        seen.append((int((padded["labels"][:, 1:] != IGNORED).sum()), int(lengths.sum()), mask.numel()))
        return {**padded, "attention_mask": mask.long()}

    class Started(transformers.TrainerCallback):
        """The first step is not counted."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                clock.start()

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=per_step,
            max_steps=steps + 1,
            group_by_length=by_length,
            optim="adamw_torch_fused",
            learning_rate=RATE,
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            use_cpu=True,
            torch_compile=setting.compiles,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(model, arguments, data_collator=collator, train_dataset=items, callbacks=[Started()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    # The loader is a batch ahead of the step.
    return clock.measured(*(sum(column) for column in zip(*seen[1 : steps + 1], strict=True)))


class Clock:
    """CPU and wall seconds since the start."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.start()

    def start(self) -> None:
        """Anew."""
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def waiting(self, function: Callable[[], T]) -> T:
        """The function's result; its wall seconds are kept as waiting."""
        began = time.perf_counter()
        result = function()
        self.waited_s += time.perf_counter() - began
        return result

    def measured(self, targets: int, tokens: int, positions: int) -> Measured:
        """What was done since the start."""
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return Measured(cpu_s, wall_s, targets, tokens, positions, self.waited_s)


def apart(function: Callable[..., Measured], *args: Any) -> Measured:
    """In a process of its own."""
    return in_own_process(function, *args)[0]


def alternated(sides: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, Measured]:
    """Of each side the round with the fewest CPU seconds a target."""
    found = [{name: run() for name, run in sides.items()} for _ in range(rounds)]
    return {name: min((row[name] for row in found), key=lambda measured: measured.cpu_s / measured.targets) for name in sides}


def padding(length: int, rows: int, model: str, pack_uri: str, tokenizer_uri: str) -> float:
    """Share of padding in so many sequences of all three tasks; nothing is read or trained."""
    recipe = recipe_of(model, HEARD, length, 1, 1)
    data = data_of(recipe, pack_uri, Tokenizer.open(tokenizer_uri))
    packer = packer_of(data.documents, stage_of(recipe))
    return 1.0 - sum(packer.next_sequence().num_tokens for _ in range(rows)) / (rows * length)


def waiting(setting: Setting, pack_uri: str, tokenizer_uri: str) -> Measured:
    """Steps that hear: FLAC and mel spectra are part of the waiting, the encoder is not."""
    return ours_ragged(replace(setting, steps=HEARING_STEPS), pack_uri, tokenizer_uri, HEARD)


def report(name: str, found: Mapping[str, Measured]) -> list[str]:
    """A table of what the sides did, and how many times theirs ours is."""
    lines = [f"{name}:", "", "| trainer | targets a CPU second | targets a second | tokens a CPU second | padding | data wait |"]
    lines.append("|---|---|---|---|---|---|")
    for side, m in found.items():
        rates = (m.targets / m.cpu_s, m.targets / m.wall_s, m.tokens / m.cpu_s)
        waited = f"{m.waited_s / m.wall_s:.2%}" if side == OURS else "-"
        lines.append(f"| {side} | {' | '.join(f'{rate:,.0f}' for rate in rates)} | {1 - m.tokens / m.positions:.2%} | {waited} |")
    if len(found) == 2:
        ours, theirs = found.values()
        ratio = (ours.targets / ours.cpu_s) / (theirs.targets / theirs.cpu_s)
        lines += ["", f"{OURS} / {list(found)[1]}, targets a CPU second: {ratio:.2f} (limit {LIMITS[name]:.2f})"]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="a size of training.config; its decoder, embedding and head are trained")
    parser.add_argument("--tokens", type=int, default=1024, help="of a step")
    parser.add_argument("--full-length", type=int, default=256, help="tokens of a row of equal length")
    parser.add_argument("--full-steps", type=int, default=10)
    parser.add_argument("--steps", type=int, default=MEGA_BATCHES, help="over ragged documents; fewer are the longest ones there")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folders", nargs="+", default=["digits", "read"], help="of ../shared/speech")
    parser.add_argument("--clips", type=int, default=None, help="take so many; all by default")
    parser.add_argument("--long", type=int, default=8192, help="tokens of the sequences whose padding is counted")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    setting = Setting(options.model, options.tokens, options.full_length, options.full_steps, options.steps, options.compile)
    clips = read_clips(options.folders, options.clips)
    with tempfile.TemporaryDirectory() as folder:
        quiet, heard = (write_speech_pack(f"{folder}/{audio}", clips, with_audio=audio) for audio in (False, True))
        pairs: dict[str, tuple[Callable[..., Measured], Callable[..., Measured], tuple[Any, ...]]] = {
            "full": (ours_full, theirs_full, quiet[1:]),
            "ragged": (ours_ragged, theirs_ragged, quiet),
            "ragged, TTS alone": (ours_ragged, theirs_ragged, (*quiet, TTS)),
        }
        for name, (ours, theirs_of, given) in pairs.items():
            sides = {OURS: partial(apart, ours, setting, *given), "transformers": partial(apart, theirs_of, setting, *given)}
            print("\n".join(report(name, alternated(sides, options.rounds))), flush=True)
        print("\n".join(report("with audio", {OURS: apart(waiting, setting, *heard)})))
        share = padding(options.long, LONG_ROWS, setting.model, *heard)
        print(f"padding of {LONG_ROWS} sequences of {options.long:,} tokens: {share:.3%}")


if __name__ == "__main__":
    main()
