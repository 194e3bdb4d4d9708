"""What workers elsewhere say of a run, shown where it was asked for: its progress, and the notes of the first of them.

Both are read from the run's folder: the workers' own output would come with their launcher's among it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from manifests.console import ProgressBar, overheard, progress, say
from training.journal import METRICS
from training.recipe import TrainingRecipe

LOOK_EVERY_S = 1.0
TAIL_BYTES = 1 << 16  # longer than a row of metrics


class Notes:
    """A file in the run's folder that a worker writes line by line, and another process reads as it grows."""

    def __init__(self, path: str) -> None:
        self._path, self._read_bytes = path, 0

    @contextmanager
    def written(self) -> Iterator[None]:
        """Everything that this process says while the body runs is written there; nothing is before the run has its folder."""
        with overheard(self._write):
            yield

    def new_lines(self) -> list[str]:
        """Those that are whole and were not read yet."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read_bytes)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._read_bytes += len(whole + end)
        return whole.decode(errors="replace").splitlines()

    def remove(self) -> None:
        with suppress(OSError):
            os.remove(self._path)

    def _write(self, message: str) -> None:
        # What cannot be written is in the run's own files too, and no reason to end it.
        with suppress(OSError), open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(message + "\n")


@contextmanager
def followed(recipe: TrainingRecipe, run_path: str, notes: Notes) -> Iterator[None]:
    """Show bars of the run's metrics, and say its notes, while the body runs; the notes are gone then."""
    is_over = threading.Event()
    follower = threading.Thread(target=_follow, args=(recipe, run_path, notes, is_over), name="follow", daemon=True)
    follower.start()
    try:
        yield
    finally:
        is_over.set()
        follower.join()
        notes.remove()


def _follow(recipe: TrainingRecipe, run_path: str, notes: Notes, is_over: threading.Event) -> None:
    stages = {stage.name: stage.num_steps for stage in recipe.stages}
    bars: dict[str, ProgressBar] = {}
    before = _newest_row(run_path)
    with progress() as shown:
        is_last = False
        while not is_last:
            is_last = is_over.wait(LOOK_EVERY_S)
            for line in notes.new_lines():
                say(line)
            row = _newest_row(run_path)
            if row is None or row == before:
                continue
            name = row["stage"]
            if name not in bars:
                bars[name] = shown.task(f"train {name}", stages[name], "steps")
                bars[name].go_on(row["step"])
            bars[name].advance(row["step"] - bars[name].done, f"loss {row['loss']:.3f}")
            before = row


def _newest_row(run_path: str) -> dict[str, Any] | None:
    """The last whole row of a step in the run's metrics; rows of measures may stand behind it."""
    try:
        with open(os.path.join(run_path, METRICS), "rb") as file:
            start = file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    # The first line may lack its beginning, the last its end.
    rows = (json.loads(line) for line in reversed(lines[bool(start) :]) if line.endswith(b"\n"))
    return next((dict(row) for row in rows if "loss" in row), None)
