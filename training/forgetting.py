"""The guard of what a model could do before: held-out loss of plain text against its lowest so far in the run.

Where it rises, stages of speech make the model forget how to write. What to do about it is the user's: the guard says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.recipe import Measure

LOSS = f"_{Measure.TEXT}_loss"  # behind a split's name, in rows of measures


@dataclass(frozen=True)
class Forgot:
    """One measure that is too far above the lowest before it."""

    stage: str
    step: int
    split: str
    text_loss: float
    lowest: float
    lowest_stage: str

    @property
    def rise(self) -> float:
        """Relative: 0.2 where the loss is 20 % above its lowest."""
        return self.text_loss / self.lowest - 1.0

    def line(self) -> str:
        """For people."""
        return (
            f"stage {self.stage!r} step {self.step}: loss of plain text on split {self.split!r} is {self.text_loss:.3f}, {self.rise:.0%} above "
            f"its lowest so far ({self.lowest:.3f}, stage {self.lowest_stage!r}); more text in the stage's mix or lower rates keep it down"
        )


class TextGuard:
    """Watches rows of measures as they come. ``rows``: those of the run so far, others among them."""

    def __init__(self, most_rise: float, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._most_rise = most_rise
        self._lowest: dict[str, tuple[float, str]] = {}  # split -> loss and stage
        for row in rows:
            self._take(row)

    def watch(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[Forgot]]:
        """(columns ``<split>_text_rise`` for the row, what is forgotten by it); a later row is held against this one too."""
        losses = _losses(row)
        found = [
            Forgot(row["stage"], row["step"], split, loss, *self._lowest[split])
            for split, loss in losses.items()
            if split in self._lowest
        ]
        self._take(row)
        rises = {f"{each.split}_{Measure.TEXT}_rise": each.rise for each in found}
        return rises, [each for each in found if not each.rise <= self._most_rise]  # a loss that is no number is forgotten too

    def _take(self, row: Mapping[str, Any]) -> None:
        for split, loss in _losses(row).items():
            if math.isfinite(loss) and loss < self._lowest.get(split, (math.inf, ""))[0]:
                self._lowest[split] = (loss, row["stage"])


def alarms(most_rise: float, rows: Sequence[Mapping[str, Any]]) -> list[Forgot]:
    """All that a run's rows say was forgotten, oldest first."""
    guard = TextGuard(most_rise)
    return [forgot for row in rows for forgot in guard.watch(row)[1]]


def _losses(row: Mapping[str, Any]) -> dict[str, float]:
    """Of a row of measures: split -> loss of its plain text."""
    if "measured" not in row:
        return {}
    return {name.removesuffix(LOSS): value for name, value in row.items() if name.endswith(LOSS)}
