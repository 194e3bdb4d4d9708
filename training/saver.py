"""When a run saves checkpoints, what it states in them, and which it keeps."""

from __future__ import annotations

from typing import Any

from training import checkpoint
from training.checkpoint import CheckpointState, Identity, Progress
from training.device import Arithmetic
from training.recipe import TrainingRecipe
from training.trainer import StageTrainer


class Saver:
    """The checkpoints of one run."""

    def __init__(self, run_path: str, recipe: TrainingRecipe, identity: Identity, arithmetic: Arithmetic) -> None:
        self.run_path, self.recipe, self.identity, self.arithmetic = run_path, recipe, identity, arithmetic
        self.newest: str | None = None  # name of the last one that is whole
        self.finished_stages: list[dict[str, Any]] = []  # rows of the run's summary

    def go_on(self, held: CheckpointState) -> None:
        """What follows goes on from that checkpoint."""
        self.newest, self.finished_stages = held.name, list(held.finished_stages)

    def load(self, held: CheckpointState, trainer: StageTrainer) -> None:
        """Tensors of the checkpoint, in place. Raises as ``checkpoint.load_trainer``."""
        checkpoint.load_trainer(checkpoint.path_of(self.run_path, held.name), trainer, held.step)

    def finish(self, number: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of all stages that are done, with that of the stage of this number; one that was there already stays."""
        if len(self.finished_stages) == number:
            self.finished_stages = [*self.finished_stages, row]
        return self.finished_stages

    def is_due(self, trainer: StageTrainer) -> bool:
        """Behind every so many steps of a stage, and behind its last."""
        return trainer.step % self.recipe.checkpoint_every == 0 or trainer.step == trainer.stage.num_steps

    def save(self, trainer: StageTrainer, progress: Progress) -> None:
        """Publish a checkpoint and let old ones go. Raises as ``checkpoint.save``."""
        state = CheckpointState(
            **vars(progress),
            identity=self.identity,
            arithmetic=self.arithmetic,
            parent=self.newest,
            finished_stages=self.finished_stages,
        )
        checkpoint.save(self.run_path, trainer, state)
        self.newest = state.name
        checkpoint.drop_old(self.run_path, self.recipe.keep_checkpoints, {s.name: s.num_steps for s in self.recipe.stages})
