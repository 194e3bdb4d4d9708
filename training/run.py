"""A run: the stages of a recipe one after the other, with checkpoints, in one loop.

    recipe.json  vocabulary.json  metrics.jsonl  tensorboard/  checkpoints/  evaluation.json  summary.json

``summary.json`` says how far the run is; ``finished`` is true when every stage is done.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from manifests.console import progress, say
from manifests.errors import MismatchError, RequestError
from manifests.recipes import resolved
from training import checkpoint
from training.checkpoint import CheckpointState, Identity, learned_digest, path_of
from training.config import model_config
from training.data import Batching, DocumentReader, stage_data
from training.device import Arithmetic, exact_arithmetic, pick_device
from training.documents import Split
from training.evaluation import measure_swap, swap_report
from training.examples import ExampleMaker
from training.feature_cache import FeatureCache
from training.growth import grow
from training.held_out import HeldOut, held_out_splits
from training.inputs import Inputs, growing_stage, open_inputs, swap_splits
from training.journal import METRICS, Journal
from training.loop import StageLoop
from training.model import StepAudio2
from training.recipe import LossWeights, PretrainStage, Stage, TrainingRecipe
from training.saver import Saver
from training.trainer import StageTrainer, masked_ids

SUMMARY = "summary.json"
EVALUATION = "evaluation.json"
RECIPE = "recipe.json"
VOCABULARY = "vocabulary.json"


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    run: str
    checkpoint: str | None  # newest checkpoint
    metrics: str
    summary: str
    evaluation: str | None
    last_losses: dict[str, float]  # by finished stage
    swap_rise: float | None  # of the first split in data.swap_splits
    steps: int  # optimiser steps that this call did
    is_finished: bool

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"run {self.run}: {self.steps} steps now, {'finished' if self.is_finished else 'not finished'}"]
        lines += [f"  {stage}: last loss {loss:.3f}" for stage, loss in self.last_losses.items()]
        if self.swap_rise is not None:
            lines.append(f"  alignment loss is {1 + self.swap_rise:.3g} times as high when audio is swapped")
        return lines


def train(
    recipe: TrainingRecipe,
    pack: str,
    tokenizer: str,
    run: str,
    *,
    until: str | None = None,
    resume: bool = False,
    allow_inexact: bool = False,
) -> TrainResult:
    """Run the recipe's stages, or those up to ``until``, in the local folder ``run``.

    What goes on from a checkpoint is computed as that was, or with ``allow_inexact`` in another way.

    A finished run of the same recipe, pack and tokenizer is left as it is. Raises RequestError for a request that cannot
    be met (nothing is written then), MismatchError when the folder's checkpoints rest on something else or are not there,
    WorkError when a loss is not finite or a checkpoint cannot be written or read.
    """
    names = [stage.name for stage in recipe.stages]
    if until is not None and until not in names:
        raise RequestError(f"stage {until!r} is not in the recipe; its stages are {', '.join(names)}")
    if "://" in run:
        raise RequestError(
            f"run {run!r} is a URI; a run writes and syncs its checkpoints on local disk: give --run a local folder"
        )
    inputs = open_inputs(recipe, pack, tokenizer)
    measured = swap_splits(inputs)
    work = Run(inputs, run, measured)
    held = work.held(resume)
    if (
        held is not None
        and held.stage_number == len(names) - 1
        and held.step == recipe.stages[-1].num_steps
        and work.is_finished()
    ):
        say(f"run {run!r} is finished already; nothing to do. Choose another --run to train again")
        return work.result(0)
    if held is not None:
        work.arithmetic.check(held.arithmetic, f"checkpoint {held.name!r}", allow_inexact)
    with exact_arithmetic(recipe.threads):
        return work.go(held, names.index(until) if until else len(names) - 1)


class Run:
    """One run folder and what runs in it."""

    def __init__(self, inputs: Inputs, run_path: str, measured: list[Split]) -> None:
        self.inputs, self.recipe, self.run_path, self.measured = inputs, inputs.recipe, run_path, measured
        self.identity = Identity(
            recipe_digest=learned_digest(inputs.recipe),
            tokenizer_id=inputs.tokenizer.tokenizer_id,
            vocabulary_hash=inputs.tokenizer.vocabulary.layout_hash,
            codec_fingerprint=inputs.tokenizer.codec_fingerprint,
            pack_id=inputs.pack.pack_id,
        )
        self.device = pick_device()
        self.arithmetic = Arithmetic.of(inputs.recipe, self.device)
        self._reader = DocumentReader(inputs.pack, inputs.recipe.data.cached_audio_bytes)
        splits = held_out_splits(inputs.recipe, inputs.pack, inputs.layouts)
        self._held_out = HeldOut(splits, self._reader, inputs.layouts, inputs.recipe.data.held_out_documents)
        self._saver = Saver(run_path, inputs.recipe, self.identity, self.arithmetic)

    def held(self, resume: bool) -> CheckpointState | None:
        """The folder's newest checkpoint, checked against this run; None in a new folder.

        Raises RequestError when ``resume`` and the folder do not go together, unless the run there is finished, MismatchError
        when the newest one that the summary names is gone and none is newer: the run would begin anew, or further back.
        """
        names = checkpoint.complete(self.run_path)
        named = self._read(SUMMARY).get("checkpoint")
        if named is not None and (not names or names[-1] < named):
            raise MismatchError(
                f"run {self.run_path!r} has no checkpoint {named!r}, which its {SUMMARY} names; bring it back, or take {SUMMARY} away "
                f"to go on from {names[-1] if names else 'the start'}"
            )
        if not names:
            if resume:
                raise RequestError(f"run {self.run_path!r} has no checkpoint to resume from; leave --resume out to begin it")
            return None
        state = checkpoint.load_state(path_of(self.run_path, names[-1]))
        self.identity.check(state.identity, f"checkpoint {names[-1]!r}")
        if not resume and not self.is_finished():
            raise RequestError(
                f"run {self.run_path!r} holds checkpoints of an unfinished run; add --resume, or choose another --run"
            )
        return state

    def is_finished(self) -> bool:
        """Whether a summary says that every stage is done."""
        return bool(self._read(SUMMARY).get("finished"))

    def go(self, held: CheckpointState | None, last_stage: int) -> TrainResult:
        """From the checkpoint (or the start) to the end of the stage with that number."""
        self._open()
        device = self.device
        vocabulary = self.inputs.tokenizer.vocabulary
        torch.manual_seed(self.recipe.seed)
        config, tags = model_config(self.recipe.model), self.recipe.num_tag_labels
        model = StepAudio2(config, vocabulary.num_rows, vocabulary.text_size, tags).to(device)
        model.model.recomputes = self.recipe.recompute
        if self.recipe.compile:
            model.model.compile_blocks()
        global_step = begun = held.global_step if held else 0
        first = held.stage_number if held else 0
        if held is None:
            self.inputs.start.load(model, self.recipe.seed)
        else:
            self._saver.go_on(held)
        most_bytes = self.recipe.data.cached_feature_bytes
        cache = FeatureCache(most_bytes) if most_bytes else None
        grows_at = growing_stage(self.recipe, self.inputs.start.loaded)
        with Journal(self.run_path, global_step) as journal, progress() as bars:
            for number in range(first, last_stage + 1):
                stage = self.recipe.stages[number]
                continued = held if held is not None and number == first else None
                if number == grows_at and continued is None:
                    grow(model, vocabulary, self.recipe.seed, wrappers=True)
                trainer = StageTrainer(model, stage, vocabulary, device)
                maker = ExampleMaker(self.inputs.layouts, stage.loss_weights)
                batching = Batching(model.config.encoder.num_mels, vocabulary.pad, cache)
                data = stage_data(self.inputs.split(stage), self._reader, maker, self.recipe, stage, batching)
                loop = StageLoop(number, trainer, data, self._saver, continued)
                if cache is not None:
                    cache.belong_to(model.encoder)
                bar = bars.task(f"train {stage.name}", stage.num_steps, "steps")
                global_step = loop.go(journal, bar, global_step)
                self._measure(journal, stage, model, loop.trainer.step, global_step)
                self._finish(loop, stage, model, device)
        return self.result(global_step - begun)

    def result(self, steps: int) -> TrainResult:
        """What the folder holds now."""
        summary = self._read(SUMMARY)
        names = checkpoint.complete(self.run_path)
        evaluation = os.path.join(self.run_path, EVALUATION)
        return TrainResult(
            run=self.run_path,
            checkpoint=path_of(self.run_path, names[-1]) if names else None,
            metrics=os.path.join(self.run_path, METRICS),
            summary=os.path.join(self.run_path, SUMMARY),
            evaluation=evaluation if os.path.exists(evaluation) else None,
            last_losses={row["name"]: row["last_loss"] for row in summary["stages"]},
            swap_rise=summary["swap_rise"],
            steps=steps,
            is_finished=summary["finished"],
        )

    def _measure(self, journal: Journal, stage: Stage, model: StepAudio2, step: int, global_step: int) -> None:
        """Write down what the stage's measures find on the held-out splits."""
        if isinstance(stage, PretrainStage) and stage.measures:
            found = self._held_out.row(model, stage.measures, masked_ids(stage, self.inputs.tokenizer.vocabulary))
            row = {"stage": stage.name, "step": step, "measured": list(stage.measures), **found}
            journal.write({**row, "global_step": global_step})

    def _finish(self, loop: StageLoop, stage: Stage, model: StepAudio2, device: torch.device) -> None:
        """Measure what the stage asks for and write the summary so far."""
        if isinstance(stage, PretrainStage) and stage.measure_swap:
            most = self.recipe.data.swap_documents
            maker = ExampleMaker(self.inputs.layouts, LossWeights())
            masked = masked_ids(stage, self.inputs.tokenizer.vocabulary)
            found = [measure_swap(model, split, self._reader, maker, most, masked, device) for split in self.measured]
            self._write(EVALUATION, swap_report(stage.name, found))
        stages = self._saver.finish(loop.number, loop.summary())
        evaluation = self._read(EVALUATION)
        self._write(
            SUMMARY,
            {
                "finished": len(stages) == len(self.recipe.stages),
                "checkpoint": self._saver.newest,
                "identity": asdict(self.identity),
                "arithmetic": asdict(self.arithmetic),
                "model": self.recipe.model,
                "parameters": sum(p.numel() for p in model.parameters()),
                "stages": stages,
                "swap_rise": evaluation.get("swap_rise"),
                "refused": {task.value: dict(reasons) for task, reasons in self.inputs.train.refused.items()},
            },
        )

    def _open(self) -> None:
        """Make the folder, with its recipe. Raises RequestError where that cannot be written."""
        try:
            os.makedirs(self.run_path, exist_ok=True)
            self._write(RECIPE, resolved(self.recipe))
            self._write(VOCABULARY, self.inputs.tokenizer.vocabulary.to_json(with_hash=True))
        except OSError as error:
            raise RequestError(f"run {self.run_path!r} cannot be written: {error.strerror}; choose another --run") from error

    def _write(self, name: str, value: dict[str, Any]) -> None:
        path = os.path.join(self.run_path, name)
        with open(f"{path}.draft", "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False)
            file.write("\n")
        os.replace(f"{path}.draft", path)

    def _read(self, name: str) -> dict[str, Any]:
        path = os.path.join(self.run_path, name)
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
