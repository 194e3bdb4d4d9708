"""What lies in the folder of a run, and what a run came to.

    recipe.json  start.json  vocabulary.json  text_tokenizer.json  metrics.jsonl  tensorboard/  checkpoints/  evaluation.json  summary.json
    spikes.jsonl, where the watch rang

``summary.json`` says how far the run is; ``finished`` is true when every stage is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from manifests.console import counted
from manifests.errors import RequestError
from manifests.ids import new_attempt_id
from manifests.recipes import resolved
from manifests.spikes import SPIKES
from tokenization.artifact import Tokenizer
from training.checkpoint import complete, path_of
from training.goodput import goodput_line
from training.journal import METRICS
from training.ranks import Ranks
from training.recipe import Group, TrainingRecipe

SUMMARY = "summary.json"
EVALUATION = "evaluation.json"
RECIPE = "recipe.json"
START = "start.json"  # parts of the model that were trained before the run
VOCABULARY = "vocabulary.json"
TEXT_TOKENIZER = "text_tokenizer.json"


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
    wall_s: dict[str, float]  # seconds of all calls, by part of ``training.goodput``
    spikes: int  # steps that the watch rang at
    documents_left_out: list[str]  # keys of those to blame
    steps: int  # optimiser steps that this call did
    is_finished: bool

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"run {self.run}: {self.steps} steps now, {'finished' if self.is_finished else 'not finished'}"]
        lines += [f"  {stage}: last loss {loss:.3f}" for stage, loss in self.last_losses.items()]
        if self.swap_rise is not None:
            lines.append(f"  alignment loss is {1 + self.swap_rise:.3g} times as high when audio is swapped")
        if self.spikes:
            named = counted(len(self.documents_left_out), "document")
            remedy = f": pack again with --leave-out {self.run}/{SPIKES}" if self.documents_left_out else ""
            lines.append(f"  {counted(self.spikes, 'spike')}, {named} to blame{remedy}")
        return [*lines, f"  {goodput_line(self.wall_s)}"]


@dataclass(frozen=True)
class RunFolder:
    """A folder on a local disk."""

    path: str

    @property
    def is_finished(self) -> bool:
        """Whether a summary says that every stage is done."""
        return bool(self.read(SUMMARY).get("finished"))

    def check_shared(self, ranks: Ranks) -> None:
        """Raises RequestError, on every rank, where some of them see another folder. Every rank must call it."""
        mark = os.path.join(self.path, f".{ranks.gather(new_attempt_id())[0]}")
        ranks.agree(lambda: open(mark, "w", encoding="utf-8").close() if ranks.is_first else None)
        seen = ranks.gather(os.path.exists(mark))
        if ranks.is_first:
            os.remove(mark)
        if not all(seen):
            raise RequestError(
                f"run {self.path!r} is another folder on rank {seen.index(False)} than on the first; give --run a folder that all of them see"
            )

    def begin(self, recipe: TrainingRecipe, tokenizer: Tokenizer, trained: Collection[Group]) -> None:
        """Make the folder, with what the run rests on. Raises RequestError where that cannot be written."""
        try:
            os.makedirs(self.path, exist_ok=True)
            self.write(RECIPE, resolved(recipe))
            self.write(START, {"trained": sorted(trained)})
            self.write(VOCABULARY, tokenizer.vocabulary.to_json(with_hash=True))
            tokenizer.text.save(os.path.join(self.path, TEXT_TOKENIZER))
        except OSError as error:
            raise RequestError(f"run {self.path!r} cannot be written: {error.strerror}; choose another --run") from error

    def result(self, steps: int) -> TrainResult:
        """What the folder holds now."""
        summary = self.read(SUMMARY)
        names = complete(self.path)
        evaluation = os.path.join(self.path, EVALUATION)
        return TrainResult(
            run=self.path,
            checkpoint=path_of(self.path, names[-1]) if names else None,
            metrics=os.path.join(self.path, METRICS),
            summary=os.path.join(self.path, SUMMARY),
            evaluation=evaluation if os.path.exists(evaluation) else None,
            last_losses={row["name"]: row["last_loss"] for row in summary["stages"]},
            swap_rise=summary["swap_rise"],
            wall_s=summary["wall_s"],
            spikes=summary["spikes"],
            documents_left_out=summary["documents_left_out"],
            steps=steps,
            is_finished=summary["finished"],
        )

    def write(self, name: str, value: dict[str, Any]) -> None:
        """A JSON file; whole or not at all."""
        path = os.path.join(self.path, name)
        with open(f"{path}.draft", "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False)
            file.write("\n")
        os.replace(f"{path}.draft", path)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file; empty where it is not there."""
        path = os.path.join(self.path, name)
        if not os.path.exists(path):
            return {}
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
