"""THE training loop: a stage differs from another in its recipe alone."""

from __future__ import annotations

from typing import Any

from manifests.console import ProgressBar
from training.blame import blame
from training.checkpoint import CheckpointState, Progress
from training.data import StageData
from training.evaluator import Evaluator
from training.goodput import Part, WallTime
from training.journal import Journal, NoJournal
from training.metering import StepMeter
from training.prefetch import Batches, Prefetcher
from training.saver import Saver
from training.spike_log import SpikeLog
from training.spikes import Action, NothingLeft, Rung, Verdict
from training.step_line import StepLine
from training.tensors import POLICY
from training.trainer import StageTrainer


class StageLoop:
    """The steps of one stage, from its start or from a checkpoint in its midst."""

    def __init__(
        self,
        number: int,
        trainer: StageTrainer,
        data: StageData,
        saver: Saver,
        spikes: SpikeLog,
        wall: WallTime,
        meter: StepMeter,
        evaluator: Evaluator,
        held: CheckpointState | None,
    ) -> None:
        """Goes on from ``held``; raises as ``checkpoint.load_parts``."""
        self.number, self.trainer, self.saver, self.spikes, self.wall = number, trainer, saver, spikes, wall
        self.meter, self.evaluator = meter, evaluator
        self.first_loss: float | None = None  # of the first step that was accepted
        self.last_loss = self.wall_s = self.stall_s = 0.0
        self._is_new = held is None
        if held is None:
            trainer.watch.begin_stage()
        else:
            trainer.watch.load_state_dict(held.watch)
            data.load_state_dict(held.data)
            self.wall_s, self.stall_s = held.stage_wall_s, held.stage_stall_s
            self._load(held)
        self.data = Prefetcher(data, trainer.stage.num_steps - trainer.step)

    def go(self, journal: Journal | NoJournal, bar: ProgressBar, global_step: int) -> int:
        """Work through what is left of the stage; returns the run's steps so far. Its last checkpoint is whole then."""
        stage, line = self.trainer.stage, StepLine()
        bar.go_on(self.trainer.step)
        if self._is_new and self.trainer.watch.recipe.action is Action.ROLL_BACK:
            self.saver.save({POLICY: self.trainer}, self.progress(global_step))
        self.wall.spend(Part.START_UP)
        with self.data:
            while self.trainer.step < stage.num_steps:
                batches = self.data.next_step()
                waited = self.wall.spend(Part.DATA_WAIT)
                flops = self.meter.count(batches)
                try:
                    row = self.trainer.train_step(batches)
                except NothingLeft:
                    global_step = self._pass_over(journal, bar, global_step)
                    continue
                except Rung as rung:
                    global_step = self._answer(rung, batches, journal, bar, global_step)
                    continue
                wall_s = waited + self.wall.spend(Part.STEPS)
                clock = {"wall_s": wall_s, "data_wait_s": waited, "tokens_per_s": row["tokens"] / wall_s}
                clock["checkpoint_stall_s"], self.saver.stall_s = self.saver.stall_s, 0.0  # since the row before
                global_step += 1
                row |= {**clock, **self.meter.columns(flops, wall_s), "global_step": global_step}
                journal.write(row)
                self.last_loss = row["loss"]
                self.first_loss = row["loss"] if self.first_loss is None else self.first_loss
                self.wall_s += wall_s
                bar.advance(details=line.cells(row))
                self._end_step(journal, global_step)
        return global_step

    def _answer(self, rung: Rung, batches: Batches, journal: Journal | NoJournal, bar: ProgressBar, global_step: int) -> int:
        """What the recipe says about a step that the watch rang at; returns the run's steps behind it. Raises as ``SpikeLog.write``.

        Skipped, the step counts: schedule and data go on, and the optimizer has not moved. Rolled back, weights, optimizer, random
        state and schedule are those of the stage's last checkpoint, and data goes on: the steps since are done with what comes next.
        """
        trainer, watch = self.trainer, self.trainer.watch
        found = blame(trainer, batches, rung)
        self.spikes.write(trainer.stage.name, global_step + 1, rung, found)
        watch.leave_out(suspect.key for suspect in found.documents)
        if rung.finding.verdict is Verdict.SKIP:
            self.data.work_out_again()
            return self._pass_over(journal, bar, global_step)
        held = self.saver.last()
        bar.advance(held.step - trainer.step)
        self.data.work_out_again(num_more=trainer.step + 1 - held.step)
        watch.roll_back(held.watch)
        self._load(held)
        journal.roll_back(held.global_step)
        self.wall.spend(Part.SPIKES)
        self.wall.roll_back(held.wall)
        return held.global_step

    def _pass_over(self, journal: Journal | NoJournal, bar: ProgressBar, global_step: int) -> int:
        """The step counts, and nothing comes of it; returns the run's steps behind it."""
        self.wall.spend(Part.SPIKES)
        self.trainer.step += 1
        bar.advance()
        self._end_step(journal, global_step + 1)
        return global_step + 1

    def _load(self, held: CheckpointState) -> None:
        """Model, optimizer and random state of a checkpoint of the stage."""
        self.trainer.optimizer.state.clear()  # a parameter that nothing had reached by then has no moments
        self.saver.load(held, {POLICY: self.trainer})
        self.trainer.step, self.first_loss, self.last_loss = held.step, held.first_loss, held.last_loss

    def _end_step(self, journal: Journal | NoJournal, global_step: int) -> None:
        """What is due behind a step: measures, then the checkpoint, which thus never has a row less. Raises as ``Evaluator.stop``."""
        self.wall.spend(Part.STEPS)  # what was written of it
        forgotten = self.evaluator.measure_if_due(self.trainer, journal, global_step)
        self.wall.spend(Part.EVALUATION)
        self._save(global_step, is_asked=self.evaluator.stops_at(forgotten))
        self.evaluator.stop(forgotten)

    def _save(self, global_step: int, *, is_asked: bool) -> None:
        """A checkpoint where one is due or asked for."""
        self.saver.look()
        is_last = self.trainer.step == self.trainer.stage.num_steps
        if is_asked or is_last or self.trainer.step % self.saver.recipe.checkpoint_every == 0:
            self.trainer.watch.checkpointed()
            self.saver.save({POLICY: self.trainer}, self.progress(global_step))
        if is_asked or is_last:
            self.saver.wait()
        stall_s = self.wall.spend(Part.CHECKPOINT)
        self.saver.stall_s += stall_s
        self.stall_s += stall_s

    def progress(self, global_step: int) -> Progress:
        """How far the run is, behind the step that was done last."""
        return Progress(
            stage_number=self.number,
            stage=self.trainer.stage.name,
            step=self.trainer.step,
            global_step=global_step,
            data=self.data.state_dict(),
            watch=self.trainer.watch.state_dict(),
            wall=self.wall.state_dict(),
            first_loss=self.first_loss,
            last_loss=self.last_loss,
            stage_wall_s=self.wall_s,
            stage_stall_s=self.stall_s,
        )

    def summary(self) -> dict[str, Any]:
        """The stage's row in the run's summary."""
        return {
            "name": self.trainer.stage.name,
            "steps": self.trainer.step,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "wall_s": self.wall_s,
            "checkpoint_stall_s": self.stall_s,
            "trainable_parameters": self.trainer.num_trainable,
        }
