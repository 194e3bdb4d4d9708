"""What the tests of ranks run on every one of them: ``python ranked.py PACK TOKENIZER OUT``, started as a launcher does.

Each scenario ends in what rank 0 writes down: rows of metrics, whole gradients, whole weights.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from manifests.errors import WorkError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.alone import each_alone
from training.batches import Batch, CtcBatch, collate
from training.blame import blame
from training.config import model_config
from training.data import Batching, DocumentReader, PackedData, StageData, stage_data
from training.documents import read_split
from training.examples import Example, ExampleMaker
from training.growth import grow
from training.layouts import Layouts
from training.model import StepAudio2
from training.objectives import Sums
from training.ranks import ALONE, Ranks, joined
from training.recipe import CtcStage, PretrainStage, Stage, Task, TrainingRecipe
from training.sharding import reshard, shard
from training.spikes import Cause, Rung
from training.trainer import StageTrainer

WIDTH, NUM_MELS = 256, 40
LETTERS = {"a": Task.ASR, "t": Task.TTS, "x": Task.TEXT}
# Rows of a step by the tasks of their documents. Only asr is heard: of four ranks that get two rows each, the second has no audio in
# ``mixed``, and of two or four, those of the second half have none in ``half``.
ROWS = {
    "mixed": ("at", "a", "x", "t", "aa", "tx", "x", "a"),
    "half": ("a", "at", "aa", "a", "x", "t", "xx", "tx"),
    "deaf": ("t", "x", "tt", "x", "xx", "t", "x", "tx"),
}
RATE = {"lr": 3e-3, "lr_end": 3e-4}
WRITES = {"decoder": RATE, "embedding": RATE, "head": RATE}
PACKED = {"kind": "pretrain", "sequence_length": WIDTH, "sequences_per_step": 8, "steps": 5, "warmup_steps": 1}
WEIGHTS = {"audio_code": 0.7, "tts_pad": 0.2, "audio_pad": 0.3, "special": 0.5}
STAGES: list[dict[str, Any]] = [
    {
        "name": "encoder_ctc",
        "kind": "ctc",
        "train": {"encoder": RATE, "ctc_head": RATE},
        "batch_documents": 8,
        "steps": 5,
        "warmup_steps": 1,
        "micro_batches": 2,
    },
    {"name": "align", "tasks": {"asr": 1, "text": 1, "tts": 1}, "train": {"adaptor": RATE}, **PACKED},
    {
        "name": "main",
        "tasks": {"tts": 2, "asr": 1, "text": 1},
        "train": {"adaptor": RATE, **WRITES},
        "loss_weights": WEIGHTS,
        **PACKED,
    },
    {"name": "head", "tasks": {"asr": 1, "text": 1, "tts": 1}, "train": {"head": RATE}, **PACKED},
]
UNCLIPPED = 1e9


@dataclass(frozen=True)
class Bench:
    """A pack, opened, and the stages that train on it."""

    pack: Pack
    tokenizer: Tokenizer
    recipe: TrainingRecipe

    @staticmethod
    def open(pack: str, tokenizer: str) -> Bench:
        plain = {"model": "micro", "seed": 3, "threads": 1, "prompts": {"asr": "", "tts": ""}}
        recipe = TrainingRecipe.model_validate({**plain, "stages": STAGES})
        return Bench(Pack.open(pack), Tokenizer.open(tokenizer), recipe)

    def stage(self, name: str, **changes: Any) -> Stage:
        return next(stage for stage in self.recipe.stages if stage.name == name).model_copy(update=changes)

    def model(self, ranks: Ranks = ALONE, *, recomputes: bool = False) -> StepAudio2:
        torch.manual_seed(0)
        vocabulary = self.tokenizer.vocabulary
        model = StepAudio2(model_config("micro"), vocabulary.num_rows, vocabulary.text_size)
        model.model.recomputes = recomputes
        shard(model, ranks)
        return model

    def data(self, stage: Stage, ranks: Ranks = ALONE) -> StageData:
        layouts = Layouts(self.tokenizer.text, self.tokenizer.vocabulary, self.tokenizer.ratio, self.recipe.prompts)
        split = read_split(self.pack, "train", layouts, list(stage.tasks), WIDTH)
        reader, maker = DocumentReader(self.pack, 1 << 24), ExampleMaker(layouts, stage.loss_weights)
        batching = Batching(NUM_MELS, self.tokenizer.vocabulary.pad)
        return stage_data(split, reader, maker, self.recipe, stage, batching, ranks.rank, ranks.world)

    def rows(self, stage: Stage, name: str) -> list[list[Example]]:
        """The next document of its task for each letter."""
        data = self.data(stage)
        assert isinstance(data, PackedData)
        positions = {task: iter(range(1000)) for task in LETTERS.values()}
        return [[data.documents[LETTERS[x]].example(next(positions[LETTERS[x]])) for x in letters] for letters in ROWS[name]]

    def batches(self, stage: Stage, name: str, ranks: Ranks = ALONE) -> list[Batch]:
        """The rank's micro-batches of a step of these rows."""
        rows = self.rows(stage, name)
        size = len(rows) // ranks.world
        part = size // stage.micro_batches
        first = ranks.rank * size
        return [
            collate(rows[start : start + part], WIDTH, NUM_MELS, self.tokenizer.vocabulary.pad)
            for start in range(first, first + size, part)
        ]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def gradients(trainer: StageTrainer) -> dict[str, torch.Tensor]:
    """Of all ranks; a parameter that none of them reached is left out."""
    return {name: whole(p.grad) for name, p in trainer.trained.items() if p.grad is not None}


def weights(model: StepAudio2) -> dict[str, torch.Tensor]:
    reshard(model)
    return {name: whole(p) for name, p in model.named_parameters()}


def steps_of(bench: Bench, ranks: Ranks) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the scenario, what rank 0 writes down of it)."""

    def step(stage: Stage, batches: list[Batch] | list[CtcBatch], **model: Any) -> dict[str, Any]:
        trainer = StageTrainer(bench.model(ranks, **model), stage, bench.tokenizer.vocabulary, ranks)
        return {"row": trainer.train_step(batches), "gradients": gradients(trainer)}

    def packed(name: str, rows: str, parts: int, clip: float = UNCLIPPED, **model: Any) -> dict[str, Any]:
        stage = bench.stage(name, micro_batches=parts, clip_grad_norm=clip)
        return step(stage, bench.batches(stage, rows, ranks), **model)

    for parts in (1, 2, 4):
        if parts * ranks.world <= 8:
            yield f"main mixed {parts}", packed("main", "mixed", parts)
    for name in ("main", "align", "head"):
        for rows in ("half", "deaf"):
            yield f"{name} {rows} 2", packed(name, rows, 2)
    yield "recomputed", packed("main", "mixed", 2, recomputes=True)
    yield "clipped", packed("main", "mixed", 2, clip=1e-3)
    ctc = bench.stage("encoder_ctc", clip_grad_norm=UNCLIPPED, micro_batches=1 if ranks.world > 4 else 2)
    yield "ctc", step(ctc, list(bench.data(ctc, ranks).next_step()))
    yield "divided", divided(bench, ranks)
    yield "not finite", not_finite(bench, ranks)
    for cause in (Cause.LOSS_NOT_FINITE, Cause.GRADIENT_NOT_FINITE):
        yield f"blamed for {cause}", blamed(bench, ranks, cause)
    yield "blamed for its audio", blamed_ctc(bench, ranks)
    yield "grown", grown(bench, ranks)
    for name in ("encoder_ctc", "main"):
        yield f"five steps of {name}", five_steps(bench, ranks, name)


def divided(bench: Bench, ranks: Ranks) -> dict[str, Any]:
    """What the gradients would be if FSDP divided by two: the tests must notice."""
    stage = bench.stage("main", clip_grad_norm=UNCLIPPED)
    model = bench.model(ranks)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(2.0)
    trainer = StageTrainer(model, stage, bench.tokenizer.vocabulary, ranks)
    trainer.train_step(bench.batches(stage, "mixed", ranks))
    return {"gradients": gradients(trainer)}


def not_finite(bench: Bench, ranks: Ranks) -> dict[str, Any]:
    """The last rank hears what is no number; what each of them says of it, and whether a weight has moved."""
    stage = bench.stage("main", micro_batches=1)
    trainer = StageTrainer(bench.model(ranks), stage, bench.tokenizer.vocabulary, ranks)
    before = weights(trainer.model)
    batches = bench.batches(stage, "mixed", ranks)
    if ranks.rank == ranks.world - 1:
        batches = [replace(b, heard=tuple(replace(h, mels_ACM=h.mels_ACM * torch.nan) for h in b.heard)) for b in batches]
    said = ""
    try:
        trainer.train_step(batches)
    except WorkError as error:
        said = str(error)
    moved = [name for name, tensor in weights(trainer.model).items() if not torch.equal(tensor, before[name])]
    return {"said": ranks.gather(said), "moved": moved}


def blamed(bench: Bench, ranks: Ranks, cause: Cause) -> dict[str, Any]:
    """The last document of the last rank has no loss, or no gradient, that is a number; whom each rank names, of how many."""
    stage = bench.stage("main", micro_batches=1)
    trainer = StageTrainer(bench.model(ranks), stage, bench.tokenizer.vocabulary, ranks)
    rows = bench.rows(stage, "mixed")
    bad, whole_sums, size = rows[-1][-1], trainer.sums, len(rows) // ranks.world
    if cause is Cause.LOSS_NOT_FINITE:
        rows[-1][-1] = replace(bad, audio=tuple(np.full_like(audio, 1e30) for audio in bad.audio))

    def sums(batch: Batch) -> Sums:
        """A square root of zero, whose slope is infinite."""
        found = whole_sums(batch)
        root = (trainer.model.adapter.conv.weight.sum() * 0.0).sqrt()
        return replace(found, loss=found.loss + root) if bad.document_id in batch.document_ids[-1:] else found

    if cause is Cause.GRADIENT_NOT_FINITE:
        trainer.sums = sums  # type: ignore[method-assign]
    own = rows[ranks.rank * size : (ranks.rank + 1) * size]
    batches = [collate(own, WIDTH, NUM_MELS, bench.tokenizer.vocabulary.pad)]
    try:
        trainer.train_step(batches)
    except Rung as rung:
        found = blame(trainer, batches, rung)
    named = [suspect.key for suspect in found.documents]
    return {"named": ranks.gather(named), "bad": bad.document_id, "of": found.num_documents, "all": sum(map(len, rows))}


def blamed_ctc(bench: Bench, ranks: Ranks) -> dict[str, Any]:
    """The last document of the last rank is heard as no number, and the first of several ranks has a document less."""
    stage = bench.stage("encoder_ctc", micro_batches=1)
    trainer = StageTrainer(bench.model(ranks), stage, bench.tokenizer.vocabulary, ranks)
    documents = [one for batch in bench.data(stage, ranks).next_step() for one in each_alone(batch)]
    bad = documents[-1]
    if ranks.rank == ranks.world - 1:
        documents[-1] = replace(bad, heard=replace(bad.heard, mels_ACM=bad.heard.mels_ACM * torch.nan))
    elif ranks.is_first:
        documents.pop()
    try:
        trainer.train_step(documents)
    except Rung as rung:
        found = blame(trainer, documents, rung)
        norms = replace(rung.finding, cause=Cause.GRADIENT_NOT_FINITE)
        again = blame(trainer, documents, Rung("encoder_ctc", 1, rung.weight, norms))
    named = [suspect.key for suspect in found.documents]
    assert [suspect.key for suspect in again.documents] == named
    (key,) = ranks.gather(bad.document_ids)[-1]
    return {"named": ranks.gather(named), "bad": key, "of": found.num_documents, "all": sum(ranks.gather(len(documents)))}


def grown(bench: Bench, ranks: Ranks) -> dict[str, Any]:
    """New rows behind an evaluation, which leaves the head whole, and the gradient of a step on them."""
    stage = bench.stage("main", clip_grad_norm=UNCLIPPED)
    model, batches = bench.model(ranks), bench.batches(stage, "mixed", ranks)
    with torch.no_grad():
        model.hidden(batches[0].ids_BT, batches[0].positions_BT, batches[0].spans)
    grow(model, bench.tokenizer.vocabulary, 5, wrappers=False)
    rows = {name: tensor for name, tensor in weights(model).items() if "embed_tokens" in name or "lm_head" in name}
    trainer = StageTrainer(model, stage, bench.tokenizer.vocabulary, ranks)
    return {"weights": rows, "row": trainer.train_step(batches), "gradients": gradients(trainer)}


def five_steps(bench: Bench, ranks: Ranks, name: str) -> dict[str, Any]:
    stage = bench.stage(name, micro_batches=2 if name == "main" else 1)
    trainer = StageTrainer(bench.model(ranks), stage, bench.tokenizer.vocabulary, ranks)
    data = bench.data(stage, ranks)
    assert isinstance(stage, CtcStage | PretrainStage)
    rows = [trainer.train_step(data.next_step()) for _ in range(stage.num_steps)]
    return {"rows": rows, "weights": weights(trainer.model)}


def main() -> None:
    pack, tokenizer, out = sys.argv[1:]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    bench, found, seconds = Bench.open(pack, tokenizer), {}, {}
    with joined() as ranks:
        began = time.perf_counter()
        for name, told in steps_of(bench, ranks):
            found[name] = told
            seconds[name] = time.perf_counter() - began
    if ranks.is_first:
        torch.save(found, out)


if __name__ == "__main__":
    main()
