"""Measures on held-out documents within a run: when they are due, what is written of them, and what they warn of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from manifests.console import say
from manifests.errors import WorkError
from training.evaluation_recipe import EvaluationRecipe
from training.forgetting import Forgot, TextGuard, alarms
from training.held_out import HeldOut
from training.journal import Journal, NoJournal
from training.recipe import PretrainStage
from training.trainer import StageTrainer, masked_ids


class Evaluator:
    """Every rank measures alike, since over ranks the model is nowhere whole; the first writes and says it.

    ``rows``: of the run's metrics so far.
    """

    def __init__(self, held_out: HeldOut, recipe: EvaluationRecipe, rows: Iterable[Mapping[str, Any]]) -> None:
        self._held_out, self._recipe = held_out, recipe
        self._rows = [row for row in rows if "measured" in row]

    def measure_if_due(self, trainer: StageTrainer, journal: Journal | NoJournal, global_step: int) -> list[Forgot]:
        """Behind a step and before its checkpoint, so that a run that goes on from there has the row. Returns what is forgotten."""
        stage, step = trainer.stage, trainer.step
        if not isinstance(stage, PretrainStage) or not stage.measures:
            return []
        if step != stage.num_steps and (stage.evaluate_every is None or step % stage.evaluate_every):
            return []
        found = self._held_out.row(trainer.model, stage.measures, masked_ids(stage, trainer.vocabulary))
        row = {"stage": stage.name, "step": step, "measured": list(stage.measures), **found, "global_step": global_step}
        self._rows = [earlier for earlier in self._rows if earlier["global_step"] < global_step]  # others were rolled back
        rises, forgotten = TextGuard(self._recipe.forgetting, self._rows).watch(row)
        self._rows.append(row)
        journal.write({**row, **rises})
        if trainer.ranks.is_first:
            for forgot in forgotten:
                say(forgot.line())
        return forgotten

    def stops_at(self, forgotten: list[Forgot]) -> bool:
        """Whether the recipe says to stop behind this step's checkpoint."""
        return bool(forgotten) and self._recipe.on_forgetting == "stop"

    def stop(self, forgotten: list[Forgot]) -> None:
        """Raises WorkError where ``stops_at``; the step's checkpoint is whole by then."""
        if self.stops_at(forgotten):
            raise WorkError(
                f"{forgotten[0].line()}. evaluation.on_forgetting is stop; the checkpoint behind that step is written: "
                "go on from it with --resume, or change the stage and begin another run"
            )

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """All that was forgotten so far, for the run's summary."""
        return [{**asdict(forgot), "rise": forgot.rise} for forgot in alarms(self._recipe.forgetting, self._rows)]
