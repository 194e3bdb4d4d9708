"""What a run writes down as it goes: ``metrics.jsonl`` and the same numbers for tensorboard."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from manifests.recipes import resolved
from training.recipe import TrainingRecipe

METRICS = "metrics.jsonl"
BOARD = "tensorboard"


class Journal:
    """Appends rows to a run's folder: one a step, and one of figures on held-out splits (``measured``) behind some.

    Rows after ``global_step`` belong to a part of the run that was lost: they are removed. On the board, steps are curves of their
    stage and figures on held-out splits curves of the run, so that they are seen to go on from stage to stage.
    """

    def __init__(self, run_path: str, global_step: int, recipe: TrainingRecipe) -> None:
        self._run_path = run_path
        self._open(global_step)
        if global_step == 0:
            self._board.add_text("recipe", f"```json\n{json.dumps(resolved(recipe), indent=2)}\n```", 0)

    def _open(self, global_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = os.path.join(self._run_path, METRICS)
        kept = [row for row in read_rows(self._run_path) if row["global_step"] <= global_step]
        draft = f"{path}.draft"
        with open(draft, "w", encoding="utf-8") as file:
            file.writelines(_line(row) for row in kept)
        os.replace(draft, path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self._board = SummaryWriter(os.path.join(self._run_path, BOARD), purge_step=global_step + 1)

    def __enter__(self) -> Journal:
        self._hook, threading.excepthook = threading.excepthook, self._except_what_comes_again
        return self

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        try:
            # Both, or the board's thread goes on to meet the full disk that the file has met.
            with closing(self._board), closing(self._file):
                pass
        except OSError:
            if failure is None:  # else a full disk has had its word already
                raise
        finally:
            threading.excepthook = self._hook

    def _except_what_comes_again(self, failed: threading.ExceptHookArgs) -> None:
        """The board writes in a thread: what the disk refuses it is raised by the next ``write``, so no trace of it is shown."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    def roll_back(self, global_step: int) -> None:
        """Go on behind an earlier step, as a new journal would."""
        self._file.close()
        self._board.close()
        self._open(global_step)

    def write(self, row: dict[str, Any]) -> None:
        """One row; every number in it is a curve."""
        self._file.write(_line(row))
        self._file.flush()
        group = "held_out" if "measured" in row else row["stage"]
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("step", "global_step"):
                self._board.add_scalar(f"{group}/{name}", value, row["global_step"])


class NoJournal:
    """In the place of a journal on ranks that write no files."""

    def __enter__(self) -> NoJournal:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def roll_back(self, global_step: int) -> None:
        """As ``write``."""

    def write(self, row: dict[str, Any]) -> None:
        """The first rank's journal has the same."""


def read_rows(run_path: str) -> Iterator[dict[str, Any]]:
    """Rows of a run's metrics, oldest first; a last line that a kill cut short is left out."""
    path = os.path.join(run_path, METRICS)
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
