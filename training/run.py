"""A run: the stages of a recipe one after the other, with checkpoints, in one loop."""

from __future__ import annotations

from dataclasses import asdict

import torch

from manifests.console import progress, say
from manifests.errors import MismatchError, RequestError
from training import checkpoint
from training.checkpoint import CheckpointState, Identity, learned_digest, path_of
from training.code_reading import find_code_reader
from training.config import model_config
from training.data import Batching, DocumentReader, stage_data
from training.device import Arithmetic, exact_arithmetic, keep_freed_memory, told
from training.documents import Split
from training.evaluation import SwapResult, measure_swap, swap_report
from training.evaluator import Evaluator
from training.examples import ExampleMaker
from training.feature_cache import FeatureCache
from training.goodput import Part, WallTime
from training.growth import grow
from training.held_out import HeldOut, held_out_splits
from training.inputs import Inputs, growing_stage, open_inputs, swap_splits
from training.journal import Journal, NoJournal, read_rows
from training.loop import StageLoop
from training.machines import Peak, device_peak
from training.metering import StepMeter
from training.model import StepAudio2
from training.ranks import Ranks, local_device
from training.recipe import LossWeights, Measure, PretrainStage, Stage, TrainingRecipe
from training.run_folder import EVALUATION, SUMMARY, RunFolder, TrainResult
from training.saver import Saver
from training.sharding import shard
from training.spike_log import SpikeLog
from training.spikes import SpikeWatch
from training.trainer import StageTrainer, masked_ids


def train(
    recipe: TrainingRecipe,
    pack: str,
    tokenizer: str,
    run: str,
    *,
    until: str | None = None,
    resume: bool = False,
    allow_inexact: bool = False,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Run the recipe's stages, or those up to ``until``, in the local folder ``run``.

    ``ranks``: the processes that do so together, in a folder that all of them see; this one alone if left out. What goes on from a checkpoint is computed as that was, or with ``allow_inexact`` in another way.

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
    wall = WallTime()
    inputs = open_inputs(recipe, pack, tokenizer)
    measured = swap_splits(inputs)
    ranks = ranks or Ranks(device=local_device())
    work = Run(inputs, run, measured, ranks, wall)
    held = work.held(resume)
    if (
        held is not None
        and held.stage_number == len(names) - 1
        and held.step == recipe.stages[-1].num_steps
        and work.folder.is_finished
    ):
        say(f"run {run!r} is finished already; nothing to do. Choose another --run to train again")
        return work.folder.result(0)
    if held is not None:
        work.go_on(held, allow_inexact)
    if ranks.device.type == "cpu":
        keep_freed_memory()
    with exact_arithmetic(recipe.threads):
        return work.go(held, names.index(until) if until else len(names) - 1)


class Run:
    """One run folder and what runs in it."""

    def __init__(self, inputs: Inputs, run_path: str, measured: list[Split], ranks: Ranks, wall: WallTime) -> None:
        """``wall``: running since the command was called."""
        self.inputs, self.recipe, self.measured, self.folder = inputs, inputs.recipe, measured, RunFolder(run_path)
        self.wall = wall
        self.identity = Identity(
            recipe_digest=learned_digest(inputs.recipe),
            tokenizer_id=inputs.tokenizer.tokenizer_id,
            vocabulary_hash=inputs.tokenizer.vocabulary.layout_hash,
            codec_fingerprint=inputs.tokenizer.codec_fingerprint,
            pack_id=inputs.pack.pack_id,
            start_digest=ranks.agree(lambda: inputs.start.digest() if ranks.is_first else "")[0],
        )
        for rank, identity in enumerate(ranks.gather(self.identity)):
            self.identity.check(identity, f"rank {rank}")
        self.ranks = ranks
        self.arithmetic = Arithmetic.of(inputs.recipe, ranks.device, ranks.world)
        self._reader = DocumentReader(inputs.pack, inputs.recipe.data.cached_audio_bytes)
        self._splits = held_out_splits(inputs.recipe, inputs.pack, inputs.layouts)
        self._saver = Saver(run_path, inputs.recipe, self.identity, self.arithmetic, ranks)

    def held(self, resume: bool) -> CheckpointState | None:
        """The folder's newest checkpoint, checked against this run; None in a new folder.

        Raises RequestError when ``resume`` and the folder do not go together, unless the run there is finished, MismatchError
        when the newest one that the summary names is gone and none is newer: the run would begin anew, or further back.
        """
        names = checkpoint.complete(self.folder.path)
        if len({tuple(found) for found in self.ranks.gather(names)}) > 1:
            raise RequestError(
                f"run {self.folder.path!r} has other checkpoints on some of the ranks; give --run a folder that all of them see"
            )
        named = self.folder.read(SUMMARY).get("checkpoint")
        if named is not None and (not names or names[-1] < named):
            raise MismatchError(
                f"run {self.folder.path!r} has no checkpoint {named!r}, which its {SUMMARY} names; bring it back, or take {SUMMARY} away "
                f"to go on from {names[-1] if names else 'the start'}"
            )
        if not names:
            if resume:
                raise RequestError(f"run {self.folder.path!r} has no checkpoint to resume from; leave --resume out to begin it")
            return None
        state = checkpoint.load_state(path_of(self.folder.path, names[-1]))
        self.identity.check(state.identity, f"checkpoint {names[-1]!r}")
        if not resume and not self.folder.is_finished:
            raise RequestError(
                f"run {self.folder.path!r} holds checkpoints of an unfinished run; add --resume, or choose another --run"
            )
        return state

    def go_on(self, held: CheckpointState, allow_inexact: bool) -> None:
        """What follows goes on from that checkpoint. Raises MismatchError as ``Arithmetic.check``."""
        differing = self.arithmetic.check(held.arithmetic, f"checkpoint {held.name!r}", allow_inexact)
        self._saver.go_on(held, differing)
        if differing and self.ranks.is_first:
            say(
                f"checkpoint {held.name!r} was computed with {told(differing)}: from here on the run is not bit for bit "
                "one that was never stopped"
            )

    def go(self, held: CheckpointState | None, last_stage: int) -> TrainResult:
        """From the checkpoint (or the start) to the end of the stage with that number."""
        ranks, device = self.ranks, self.ranks.device
        ranks.agree(
            lambda: self.folder.begin(self.recipe, self.inputs.tokenizer, self.inputs.start.trained) if ranks.is_first else None
        )
        self.folder.check_shared(ranks)
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
        shard(model, ranks)
        most_bytes = self.recipe.data.cached_feature_bytes
        cache = FeatureCache(most_bytes) if most_bytes else None
        grows_at = growing_stage(self.recipe, self.inputs.start.loaded)
        watch = SpikeWatch(self.recipe.spikes)
        if held is not None:
            watch.load_state_dict(held.watch)
            self.wall.go_on(held.wall, (row for row in read_rows(self.folder.path) if row["global_step"] > global_step))
        spikes = SpikeLog(self.folder.path, self.inputs.pack, self.recipe.data.train_split, ranks, watch.num_spikes)
        written = Journal(self.folder.path, global_step, self.recipe) if ranks.is_first else NoJournal()
        earlier = [row for row in read_rows(self.folder.path) if row["global_step"] <= global_step]
        evaluator, peak = Evaluator(self._held_out(last_stage), self.recipe.evaluation, earlier), device_peak(device)
        if ranks.is_first:
            say(peak.line())
        with written as journal, progress(is_shown=ranks.is_first) as bars, self._saver:
            for number in range(first, last_stage + 1):
                stage = self.recipe.stages[number]
                continued = held if held is not None and number == first else None
                if number == grows_at and continued is None:
                    grow(model, vocabulary, self.recipe.seed, wrappers=True)
                trainer = StageTrainer(model, stage, vocabulary, ranks, watch, self.recipe.precision)
                maker = ExampleMaker(self.inputs.layouts, stage.loss_weights)
                batching = Batching(model.config.encoder.num_mels, vocabulary.pad, cache, watch.left_out)
                data = stage_data(
                    self.inputs.split(stage), self._reader, maker, self.recipe, stage, batching, ranks.rank, ranks.world
                )
                loop = StageLoop(
                    number, trainer, data, self._saver, spikes, self.wall, StepMeter(trainer, peak), evaluator, continued
                )
                if cache is not None:
                    cache.belong_to(model.encoder)
                bar = bars.task(f"train {stage.name}", stage.num_steps, "steps")
                global_step = loop.go(journal, bar, global_step)
                self._finish(loop, stage, model, peak)
        ranks.barrier()  # behind the first one's summary
        return self.folder.result(global_step - begun)

    def _held_out(self, last_stage: int) -> HeldOut:
        """What the stages up to the one of that number are measured on, with who reads the speech where one measures it."""
        recipe, stages = self.recipe, self.recipe.stages[: last_stage + 1]
        speaks = any(Measure.TTS in stage.measures for stage in stages if isinstance(stage, PretrainStage))
        code_reader = find_code_reader(self.inputs, self.folder.path, self._reader, self.ranks) if speaks else None
        most = recipe.data.held_out_documents
        return HeldOut(
            self._splits, self._reader, self.inputs.layouts, most, recipe.evaluation.speaking, recipe.seed, code_reader
        )

    def _finish(self, loop: StageLoop, stage: Stage, model: StepAudio2, peak: Peak) -> None:
        """Measure what the stage asks for and write the summary so far."""
        found = self._swapped(stage, model)
        self.wall.spend(Part.EVALUATION)
        stages = self._saver.finish(loop.number, loop.summary())
        if not self.ranks.is_first:
            return
        if found:
            self.folder.write(EVALUATION, swap_report(stage.name, found))
        self.folder.write(
            SUMMARY,
            {
                "finished": len(stages) == len(self.recipe.stages),
                "wall_s": self.wall.state_dict(),
                "goodput": self.wall.goodput,
                "spikes": loop.trainer.watch.num_spikes,
                "documents_left_out": list(loop.trainer.watch.left_out),
                "checkpoint": self._saver.newest,
                "identity": asdict(self.identity),
                "arithmetic": asdict(self.arithmetic),
                "inexact_resumes": self._saver.inexact_resumes,
                "model": self.recipe.model,
                "parameters": sum(p.numel() for p in model.parameters()),
                "stages": stages,
                "peak": asdict(peak),
                "forgotten": loop.evaluator.alarms,
                "swap_rise": self.folder.read(EVALUATION).get("swap_rise"),
                "refused": {task.value: dict(reasons) for task, reasons in self.inputs.train.refused.items()},
            },
        )

    def _swapped(self, stage: Stage, model: StepAudio2) -> list[SwapResult]:
        """Of each split, where the stage asks for it."""
        if not (isinstance(stage, PretrainStage) and stage.measure_swap):
            return []
        maker = ExampleMaker(self.inputs.layouts, LossWeights())
        masked, most = masked_ids(stage, self.inputs.tokenizer.vocabulary), self.recipe.data.swap_documents
        return [measure_swap(model, split, self._reader, maker, most, masked, self.ranks.device) for split in self.measured]
