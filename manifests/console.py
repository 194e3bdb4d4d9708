"""What a person sees while work runs: bars with ETA on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

LINE_EVERY_S = 10.0


class ProgressBar:
    """One bar: ``advance`` by what was done; ``note`` is shown behind it."""

    def __init__(self, progress: Progress, title: str, total: float, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.note = 0.0, ""
        self._progress = progress
        self._began = self._line_at = time.monotonic()
        self._rich_id: Any = None

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        self._progress.show(self)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the mean rate so far; None before anything was done."""
        if not self.done:
            return None
        return (time.monotonic() - self._began) * max(0.0, self.total - self.done) / self.done

    def line(self) -> str:
        """The bar as one plain line."""
        eta = "" if self.eta_s is None or self.done >= self.total else f", ETA {self.eta_s:.0f} s"
        note = f", {self.note}" if self.note else ""
        return f"{self.title}: {self.done:.0f}/{self.total:.0f} {self.unit}{eta}{note}"


class Progress:
    """A group of bars. Not thread-safe; drive it from one thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rich: Any = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._rich = RichProgress(
                TextColumn("{task.description:<24}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self._stream),
            )

    def __enter__(self) -> Progress:
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def task(self, title: str, total: float, unit: str) -> ProgressBar:
        """A new bar counting to ``total`` units."""
        task = ProgressBar(self, title, total, unit)
        if self._rich is not None:
            task._rich_id = self._rich.add_task(title, total=total, unit=unit, note="")
        return task

    def show(self, task: ProgressBar) -> None:
        if self._rich is not None:
            self._rich.update(task._rich_id, completed=task.done, total=task.total, note=task.note)
            return
        now = time.monotonic()
        if task.done >= task.total or now - task._line_at >= LINE_EVERY_S:
            task._line_at = now
            print(task.line(), file=self._stream, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """``with progress() as bars:``"""
    with Progress() as bars:
        yield bars


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(message, file=sys.stderr, flush=True)


def answer(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """A verb's result on stdout: JSON for machines, lines for people."""
    print(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) if as_json else "\n".join(lines), flush=True)
