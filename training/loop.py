"""THE training loop: a stage differs from another in its recipe alone."""

from __future__ import annotations

import time
from typing import Any

from manifests.console import ProgressBar
from training.checkpoint import CheckpointState, Progress
from training.data import StageData
from training.journal import Journal
from training.prefetch import Prefetcher
from training.saver import Saver
from training.trainer import StageTrainer


class StageLoop:
    """The steps of one stage, from its start or from a checkpoint in its midst."""

    def __init__(self, number: int, trainer: StageTrainer, data: StageData, saver: Saver, held: CheckpointState | None) -> None:
        """Goes on from ``held``; raises as ``checkpoint.load_trainer``."""
        self.number, self.trainer, self.saver = number, trainer, saver
        self.first_loss = self.last_loss = self.wall_s = 0.0
        if held is not None:
            saver.load(held, trainer)
            data.load_state_dict(held.data)
            self.first_loss, self.last_loss, self.wall_s = held.first_loss, held.last_loss, held.stage_wall_s
        self.data = Prefetcher(data, trainer.stage.num_steps - trainer.step)

    def go(self, journal: Journal, bar: ProgressBar, global_step: int) -> int:
        """Work through what is left of the stage; returns the run's steps so far."""
        stage = self.trainer.stage
        bar.advance(self.trainer.step)
        with self.data:
            while self.trainer.step < stage.num_steps:
                began = time.perf_counter()
                batches = self.data.next_step()
                waited = time.perf_counter() - began
                row = self.trainer.train_step(batches)
                wall_s = time.perf_counter() - began
                clock = {"wall_s": wall_s, "data_wait_s": waited, "tokens_per_s": row["tokens"] / wall_s}
                global_step += 1
                journal.write({**row, **clock, "global_step": global_step})
                self.last_loss = row["loss"]
                self.first_loss = row["loss"] if row["step"] == 1 else self.first_loss
                self.wall_s += wall_s
                bar.advance(1, f"loss {row['loss']:.3f}")
                if self.saver.is_due(self.trainer):
                    self.saver.save(self.trainer, self.progress(global_step))
        return global_step

    def progress(self, global_step: int) -> Progress:
        """How far the run is, behind the step that was done last."""
        return Progress(
            stage_number=self.number,
            stage=self.trainer.stage.name,
            step=self.trainer.step,
            global_step=global_step,
            data=self.data.state_dict(),
            first_loss=self.first_loss,
            last_loss=self.last_loss,
            stage_wall_s=self.wall_s,
        )

    def summary(self) -> dict[str, Any]:
        """The stage's row in the run's summary."""
        return {
            "name": self.trainer.stage.name,
            "steps": self.trainer.step,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "wall_s": self.wall_s,
            "trainable_parameters": self.trainer.num_trainable,
        }
