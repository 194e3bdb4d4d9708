"""The figures of a run, of what lies in its folder: stages, speed, held-out documents, what was forgotten and what rang.

Everything is plain JSON with a unit in each name; what is not there is None or empty, never made up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from manifests.spikes import Spike
from training.forgetting import alarms
from training.recipe import TrainingRecipe

Row = Mapping[str, Any]


def run_figures(
    run_path: str, recipe: TrainingRecipe, summary: Row, rows: Sequence[Row], spikes: Sequence[Spike]
) -> dict[str, Any]:
    """Of a run whose metrics are ``rows``; ``summary`` is empty before the first stage is done."""
    steps = [row for row in rows if "measured" not in row]
    facts = {row["name"]: row for row in summary.get("stages", [])}
    stages = [
        {
            **stage_figures(own),
            "checkpoint_stall_s": _stall_s(own, facts.get(stage.name, {})),
            "planned_steps": stage.num_steps,
            "trainable_parameters": facts.get(stage.name, {}).get("trainable_parameters"),
        }
        for stage in recipe.stages
        if (own := [row for row in steps if row["stage"] == stage.name])
    ]
    measured = [row for row in rows if "measured" in row]
    return {
        "run": os.path.basename(os.path.abspath(run_path)),
        "model": recipe.model,
        "parameters": summary.get("parameters"),
        "is_finished": bool(summary.get("finished")),
        "peak": summary.get("peak"),
        "stages": stages,
        "waiting_stages": [stage.name for stage in recipe.stages[len(stages) :]],
        "all": {**whole_figures(steps), "checkpoint_stall_s": _sum(stages, "checkpoint_stall_s")},
        "held_out": [dict(row) for row in measured],
        "forgotten": [
            {**asdict(each), "rise": each.rise, "line": each.line()} for each in alarms(recipe.evaluation.forgetting, measured)
        ],
        "spikes": [asdict(spike) for spike in spikes],
    }


def stage_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one stage's steps, of which there is one at least."""
    return {
        "stage": rows[0]["stage"],
        "steps": rows[-1]["step"],
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        **whole_figures(rows),
    }


def whole_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Sums and means over steps: shares are of wall time, and so is MFU (a step that took long weighs as much)."""
    wall_s, tokens = _sum(rows, "wall_s"), _sum(rows, "tokens")
    busy = {name: [(row[name], row["wall_s"]) for row in rows if name in row] for name in ("mfu", "hfu")}
    means = {
        name: sum(value * s for value, s in pairs) / sum(s for _, s in pairs) if pairs else None for name, pairs in busy.items()
    }
    return {
        "wall_s": wall_s,
        "tokens": tokens,
        "tokens_per_s": tokens / wall_s if wall_s else None,
        "data_wait_share": _sum(rows, "data_wait_s") / wall_s if wall_s else None,
        "flops": _sum(rows, "flops"),
        **means,
    }


def _stall_s(rows: Sequence[Row], done: Row) -> float:
    """That training stood still for a stage's checkpoints; ``done``: the summary's row of it, once there is one.

    A row of metrics has what lay behind the row before it: the first one's is of the stage before, and none has a stage's last.
    """
    found: float = done.get("checkpoint_stall_s", _sum(rows[1:], "checkpoint_stall_s"))
    return found


def _sum(rows: Sequence[Row], name: str) -> float:
    return sum(row.get(name, 0) for row in rows)
