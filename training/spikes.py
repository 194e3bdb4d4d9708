"""The watch over a stage's steps: which of them the optimizer must not take, judged by loss and gradient norm before it moves.

Robust z-scores (Iglewicz and Hoaglin, "How to detect and handle outliers", 1993): distance from the median of the last accepted
steps in units of 1.4826 times their median absolute deviation, which a spike among them moves as little as it moves the median.
Nothing here computes: torch is not imported.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from pydantic import Field, PositiveFloat

from manifests.errors import WorkError
from manifests.recipes import RecipeModel

# Of normal noise the standard deviation is so many times the median absolute deviation.
SIGMA = 1.4826
# Floors of the deviation. In nats: what moves the loss by less than threshold times this is no harm, however flat the curve was.
LEAST_LOSS_DEVIATION = 0.02
# Of the norm's logarithm: a quarter up or down.
LEAST_NORM_DEVIATION = math.log(1.25)


class Action(StrEnum):
    """What is done about a step that the watch rings at."""

    SKIP = "skip"  # the optimizer stays; schedule and data go on
    ROLL_BACK = "roll_back"  # weights, optimizer and schedule go back to the stage's last checkpoint; data goes on
    STOP = "stop"


class SpikeRecipe(RecipeModel):
    """When the watch rings, and what is done then. What is not finite rings always."""

    action: Action = Action.SKIP
    window: int = Field(
        default=128, ge=8
    )  # accepted steps that one is compared with; before there are so many, no finite step rings
    threshold: PositiveFloat = 10.0  # robust z-score of the loss from which on it rings
    grad_threshold: PositiveFloat = 10.0  # the same of the logarithm of the gradient norm
    patience: int = Field(
        default=3, ge=0
    )  # steps skipped one after the other, or rollbacks to one checkpoint; one more stops the run


class Cause(StrEnum):
    """Why the watch rings."""

    LOSS_NOT_FINITE = "loss_not_finite"
    GRADIENT_NOT_FINITE = "gradient_not_finite"
    LOSS = "loss"
    GRADIENT = "gradient"


class Verdict(StrEnum):
    """What becomes of a step."""

    STEP = "step"
    SKIP = "skip"
    ROLL_BACK = "roll_back"
    STOP = "stop"


@dataclass(frozen=True)
class Finding:
    """What the watch says of a step. The z-scores are None before the window is full, and of what is not finite."""

    verdict: Verdict
    cause: Cause | None
    loss: float
    grad_norm: float
    loss_z: float | None
    grad_z: float | None

    @property
    def what(self) -> str:
        """Why the watch rang, for people."""
        return {
            None: "nothing rang",
            Cause.LOSS_NOT_FINITE: f"loss is {self.loss}; it must be finite",
            Cause.GRADIENT_NOT_FINITE: f"gradient norm is {self.grad_norm}; it must be finite",
            Cause.LOSS: f"loss {self.loss:.3f} is {self.loss_z or 0.0:.0f} deviations above the usual",
            Cause.GRADIENT: f"gradient norm {self.grad_norm:.3g} is {self.grad_z or 0.0:.0f} deviations above the usual",
        }[self.cause]


class Rung(WorkError):
    """The watch rang at a step, and nothing of it was updated. The loop does what the verdict says; by itself it ends the work."""

    def __init__(self, stage: str, step: int, weight: float, finding: Finding) -> None:
        """``weight``: of all targets of the step, by which its loss and gradient are divided."""
        super().__init__(f"stage {stage!r} step {step}: {finding.what}. Nothing was updated")
        self.step, self.weight, self.finding = step, weight, finding


class NothingLeft(WorkError):
    """A step without a target: all of its documents were left out. Nothing is updated, and nothing is wrong."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__(f"stage {stage!r} step {step}: every document of it was left out. Nothing was updated")


class SpikeWatch:
    """Compares each step of a stage with those that were accepted before it.

    The loss is compared as it is: nats are a scale of their own, and a logarithm would make much of trifles near zero. The gradient norm
    by its logarithm: its noise is by factors. Only what lies above the usual rings.
    """

    def __init__(self, recipe: SpikeRecipe) -> None:
        self.recipe = recipe
        self.num_spikes = 0  # of the run
        self.left_out: dict[str, None] = {}  # keys of documents that the run does not read any more, in the order they were named
        self._accepted: deque[dict[str, float]] = deque(maxlen=recipe.window)
        self._in_a_row = 0

    def begin_stage(self) -> None:
        """What was usual in the stage before says nothing of this one."""
        self._accepted.clear()
        self._in_a_row = 0

    def judge(self, loss: float, grad_norm: float, by_kind: Mapping[str, float]) -> Finding:
        """The verdict on a step, which counts as accepted or as a spike from here on.

        ``by_kind``: further columns of the step whose usual value will be asked for.
        """
        loss_z, grad_z = self.score(loss, grad_norm)
        cause = _cause(loss, grad_norm, self._is_above(loss_z, grad_z))
        if cause is None:
            self._accepted.append({"loss": loss, "grad_norm": grad_norm, **by_kind})
            self._in_a_row = 0 if self.recipe.action is not Action.ROLL_BACK else self._in_a_row
            return Finding(Verdict.STEP, None, loss, grad_norm, loss_z, grad_z)
        self.num_spikes += 1
        self._in_a_row += 1
        is_enough = self._in_a_row > self.recipe.patience
        verdict = Verdict.STOP if is_enough else Verdict(self.recipe.action)
        return Finding(verdict, cause, loss, grad_norm, loss_z, grad_z)

    def score(self, loss: float, grad_norm: float) -> tuple[float | None, float | None]:
        """Robust z-scores of a loss and a gradient norm."""
        if len(self._accepted) < self.recipe.window:
            return None, None
        losses = [row["loss"] for row in self._accepted]
        norms = [_log(row["grad_norm"]) for row in self._accepted]
        return _score(loss, losses, LEAST_LOSS_DEVIATION), _score(_log(grad_norm), norms, LEAST_NORM_DEVIATION)

    def rings(self, loss: float, grad_norm: float) -> bool:
        """Whether such a step would ring; counts nothing."""
        return _cause(loss, grad_norm, self._is_above(*self.score(loss, grad_norm))) is not None

    def usual(self, column: str) -> float | None:
        """Median of a column over the window; None where no accepted step had it."""
        values = [row[column] for row in self._accepted if column in row]
        return median(values) if values else None

    def checkpointed(self) -> None:
        """The stage has a new checkpoint: a rollback goes no further back than here."""
        self._in_a_row = 0 if self.recipe.action is Action.ROLL_BACK else self._in_a_row

    def leave_out(self, keys: Iterable[str]) -> None:
        """Documents that the rest of the run is to do without."""
        self.left_out.update(dict.fromkeys(keys))

    def state_dict(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return {
            "accepted": list(self._accepted),
            "in_a_row": self._in_a_row,
            "num_spikes": self.num_spikes,
            "left_out": list(self.left_out),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._accepted = deque(state["accepted"], maxlen=self.recipe.window)
        self._in_a_row, self.num_spikes = int(state["in_a_row"]), int(state["num_spikes"])
        self.left_out.clear()  # whoever reads data holds it
        self.leave_out(state["left_out"])

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """What was usual at a checkpoint is so again; what was counted and left out since stays."""
        self._accepted = deque(state["accepted"], maxlen=self.recipe.window)

    def _is_above(self, loss_z: float | None, grad_z: float | None) -> Cause | None:
        if loss_z is not None and loss_z > self.recipe.threshold:
            return Cause.LOSS
        return Cause.GRADIENT if grad_z is not None and grad_z > self.recipe.grad_threshold else None


def _cause(loss: float, grad_norm: float, above: Cause | None) -> Cause | None:
    if not math.isfinite(loss):
        return Cause.LOSS_NOT_FINITE
    return above if math.isfinite(grad_norm) else Cause.GRADIENT_NOT_FINITE


def _score(value: float, values: Sequence[float], least: float) -> float | None:
    if not math.isfinite(value):
        return None
    middle = median(values)
    return (value - middle) / max(SIGMA * median(abs(other - middle) for other in values), least)


def _log(norm: float) -> float:
    """A norm of zero, where nothing had a gradient, is as small as can be."""
    return math.log(max(norm, 1e-30)) if math.isfinite(norm) else norm
