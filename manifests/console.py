"""What a person sees while work runs: bars with ETA on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

LINE_EVERY_S = 10.0


class ProgressBar:
    """One bar: ``advance`` by what was done; ``note`` is shown behind it.

    With a ``total_weight`` the time left goes by weight (bytes, say): units may differ in size.
    """

    def __init__(self, progress: Progress, title: str, total: float, unit: str, total_weight: float = 0.0) -> None:
        self.title, self.total, self.unit, self.total_weight = title, total, unit, total_weight
        self.done, self.done_weight, self.note = 0.0, 0.0, ""
        self.details: Sequence[str] = ()
        self._progress = progress
        self._began = self._line_at = time.monotonic()
        self._done_before = 0.0
        self._rich_id: Any = None

    def advance(self, amount: float = 1.0, note: str = "", weight: float = 0.0, details: Sequence[str] = ()) -> None:
        """``details``: figures, the most important first; as many as fit stand on a line of their own."""
        self.done += amount
        self.done_weight += weight
        self.note, self.details = note or self.note, details or self.details
        self._progress.show(self)

    def go_on(self, done: float) -> None:
        """So much was done by an earlier process: the time left goes by what is done from now on."""
        self.done = self._done_before = done
        self._began = time.monotonic()
        self._progress.show(self)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the mean rate so far; None before anything was done."""
        done, total = (self.done_weight, self.total_weight) if self.total_weight else (self.done, self.total)
        done_now = done - self._done_before
        if not done_now:
            return None
        return (time.monotonic() - self._began) * max(0.0, total - done) / done_now

    @property
    def eta(self) -> str:
        """Time left for people; empty when it is not known or nothing is left."""
        return "" if self.eta_s is None or self.done >= self.total else f"ETA {duration(self.eta_s)}"

    def line(self) -> str:
        """The bar as one plain line."""
        eta = f", {self.eta}" if self.eta else ""
        rest = "".join(f", {part}" for part in (self.note, *self.details) if part)
        return f"{self.title}: {self.done:.0f}/{self.total:.0f} {self.unit}{eta}{rest}"


class Progress:
    """A group of bars. Not thread-safe; drive it from one thread. Where not ``is_shown`` nothing is printed."""

    def __init__(self, stream: TextIO | None = None, *, is_shown: bool = True) -> None:
        self._stream, self._is_shown = stream or sys.stderr, is_shown
        self._rich: Any = None
        self._details: Sequence[str] = ()  # of the bar that moved last
        if self._stream.isatty() and is_shown:
            from rich.console import Console, Group
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            self._rich = RichProgress(
                TextColumn("{task.description:<24}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[eta]}"),
                TextColumn("{task.fields[note]}"),
            )
            # One display of both, so that a line below the bars does not flicker.
            self._live = Live(Group(self._rich, self), console=Console(file=self._stream), refresh_per_second=10)

    def __enter__(self) -> Progress:
        if self._rich is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._live.stop()

    def __rich_console__(self, _: Any, options: Any) -> Iterator[Any]:
        """The line below the bars on a terminal, by rich's protocol."""
        from rich.text import Text

        if line := fitting(self._details, options.max_width):
            yield Text(line)

    def task(self, title: str, total: float, unit: str, total_weight: float = 0.0) -> ProgressBar:
        """A new bar counting to ``total`` units."""
        task = ProgressBar(self, title, total, unit, total_weight)
        if self._rich is not None:
            task._rich_id = self._rich.add_task(title, total=total, unit=unit, eta="", note="")
        return task

    def show(self, task: ProgressBar) -> None:
        if not self._is_shown:
            return
        if self._rich is not None:
            self._details = task.details
            self._rich.update(task._rich_id, completed=task.done, total=task.total, eta=task.eta, note=task.note)
            return
        now = time.monotonic()
        if task.done >= task.total or now - task._line_at >= LINE_EVERY_S:
            task._line_at = now
            print(task.line(), file=self._stream, flush=True)


@contextmanager
def progress(*, is_shown: bool = True) -> Iterator[Progress]:
    """``with progress() as bars:``; of several processes that do the same, one shows it."""
    with Progress(is_shown=is_shown) as bars:
        yield bars


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(message, file=sys.stderr, flush=True)
    for listener in _listeners:
        listener(message)


_listeners: list[Callable[[str], None]] = []


@contextmanager
def overheard(listener: Callable[[str], None]) -> Iterator[None]:
    """What is said while the body runs, on any thread, is given to the listener too."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def answer(value: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    """A verb's result on stdout: JSON for machines, lines for people."""
    print(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) if as_json else "\n".join(lines), flush=True)


def duration(seconds: float) -> str:
    """Seconds for people, in two units at most: ``8 s``, ``3 min 20 s``, ``5 h 04 min``, ``2 d 07 h``."""
    whole = round(seconds)
    for size, name, below, below_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // below:02d} {below_name}"
    return f"{whole} s"


def volume(num_bytes: float) -> str:
    """Bytes for people: ``512 B``, ``3.4 MiB``, ``1.2 TiB``."""
    if num_bytes < 1024:
        return f"{num_bytes:.0f} B"
    for name in ("KiB", "MiB", "GiB", "TiB"):
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {name}" if num_bytes < 100 else f"{num_bytes:.0f} {name}"
    return f"{num_bytes / 1024:.3g} PiB"


def counted(num: int, one: str, many: str | None = None) -> str:
    """A count for people: ``1 clip``, ``2,345 clips``; ``many`` where the plural has more than an s."""
    return f"{num:,} {one if num == 1 else many or f'{one}s'}"


def number(value: float | None) -> str:
    """A figure for people: three digits that count, thousands apart; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def hours(value_h: float) -> str:
    """Hours for people, in the unit that fits: ``1,234 h``, ``45.2 min``, ``16.3 s``."""
    if value_h >= 1 or value_h == 0:
        return f"{number(value_h)} h"
    return f"{number(value_h * 60)} min" if value_h * 60 >= 1 else f"{number(value_h * 3600)} s"


def money(value: float, currency: str) -> str:
    """``39,682 USD``, ``1.27 USD``, ``<0.01 USD``."""
    if 0 < value < 0.01:
        return f"<0.01 {currency}"
    return f"{value:,.0f} {currency}" if value >= 100 else f"{value:.2f} {currency}"


def share(value: float | None) -> str:
    """A fraction as a percentage; a dash where there is none."""
    return "-" if value is None else f"{value:.0%}"


def fitting(cells: Sequence[str], width: int) -> str:
    """The first cells that stand in a line of so many characters, two spaces apart."""
    kept = ""
    for cell in cells:
        line = f"{kept}  {cell}" if kept else cell
        if len(line) > width:
            break
        kept = line
    return kept


def bar(done: float, total: float, width: int = 20) -> str:
    """``██████░░░░``: full only when all is done."""
    filled = width if done >= total else min(width - 1, int(width * done / total))
    return "█" * filled + "░" * (width - filled)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
