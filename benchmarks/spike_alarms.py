"""Would the watch have rung? The curves of runs that went well, through the watch once more: ``python -m benchmarks.spike_alarms RUN...``

A line a stage: steps, those that the default rules ring at, and the largest scores, for other lengths of the window too.
"""

from __future__ import annotations

import sys
from itertools import groupby

from manifests.console import aligned
from training.journal import read_rows
from training.spikes import SpikeRecipe, SpikeWatch

WINDOWS = (128, 64, 32)


def main() -> None:
    rows = [["run", "stage", "steps", *(f"{window}: rings, largest loss and norm score" for window in WINDOWS)]]
    alarms, compared, steps = dict.fromkeys(WINDOWS, 0), dict.fromkeys(WINDOWS, 0), 0
    for run in sys.argv[1:]:
        for stage, found in groupby((row for row in read_rows(run) if "grad_norm" in row), key=lambda row: row["stage"]):
            curve = [(row["loss"], row["grad_norm"]) for row in found]
            cells = [replay(curve, SpikeRecipe(window=window, patience=len(curve))) for window in WINDOWS]
            for window, (num, _, _) in zip(WINDOWS, cells, strict=True):
                alarms[window] += num
                compared[window] += max(0, len(curve) - window)
            steps += len(curve)
            rows.append([run, stage, str(len(curve)), *(f"{num}, {loss:.1f}, {norm:.1f}" for num, loss, norm in cells)])
    print("\n".join(aligned(rows)))
    told = (f"of {window}: {num} alarms in {compared[window]} steps that it compares" for window, num in alarms.items())
    print(f"{steps} steps; windows {', '.join(told)}")


def replay(curve: list[tuple[float, float]], recipe: SpikeRecipe) -> tuple[int, float, float]:
    """(Steps that ring, largest score of the loss, of the norm)."""
    watch, scores = SpikeWatch(recipe), [(0.0, 0.0)]
    for loss, norm in curve:
        found = watch.judge(loss, norm, {})
        scores.append((found.loss_z or 0.0, found.grad_z or 0.0))
    return watch.num_spikes, max(loss for loss, _ in scores), max(norm for _, norm in scores)


if __name__ == "__main__":
    main()
