"""Curves of a run as inline SVG: several in one drawing, over the steps of a stage or of the whole run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from manifests.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    PEAK_CUT,
    RIGHT,
    TOP,
    WIDTH,
    level_line,
    small_plot,
    tick_below,
    ticks,
)

TONES = 8  # colours of the page's style: more groups have a rate or a norm than it has speakers
FEW_POINTS = 30  # that are drawn one by one besides the line


@dataclass(frozen=True)
class Series:
    """One curve: pieces of (step, value) in order, with gaps between them. What is not finite is left out."""

    name: str
    pieces: Sequence[Sequence[tuple[float, float]]]

    @property
    def finite(self) -> list[list[tuple[float, float]]]:
        found = [[(step, value) for step, value in piece if math.isfinite(value)] for piece in self.pieces]
        return [piece for piece in found if piece]


@dataclass(frozen=True)
class Stretch:
    """Steps of one stage."""

    name: str
    first: float
    last: float


def lines_svg(title: str, series: Sequence[Series], stages: Sequence[Stretch] = (), marks: Sequence[float] = ()) -> str:
    """Curves from zero up, the n-th in the n-th colour; empty where no curve has a point.

    ``stages`` are shaded in turn, ``marks`` are steps that stand out. A few peaks far above the rest are cut off at the frame, which
    says so.
    """
    drawn = [(number % TONES, each, each.finite) for number, each in enumerate(series) if each.finite]
    if not drawn:
        return ""
    points = [point for _, _, pieces in drawn for piece in pieces for point in piece]
    steps = [step for step, _ in points] + [edge for stage in stages for edge in (stage.first, stage.last)]
    first, last = min(steps), max(*steps, min(steps) + 1)
    top, is_cut = _top([value for _, value in points])

    def x_at(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(value, 0.0), top) / top

    def upright(kind: str, step: float) -> str:
        return f'<line class="{kind}" x1="{x_at(step):.1f}" x2="{x_at(step):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'

    parts = [
        f'<rect class="stretch{number % 2}" x="{x_at(stage.first):.1f}" y="{TOP}" width="{x_at(stage.last) - x_at(stage.first):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"><title>{escape(stage.name)}</title></rect>'
        for number, stage in enumerate(stages)
    ]
    parts += [level_line(y_at(value), f"{value:g}") for value in ticks(0, top, 5)]
    parts += [tick_below(x_at(step), f"{step:g}") for step in ticks(first, last, 5)]
    parts += [upright("mark", step) for step in marks if first <= step <= last]
    for tone, each, pieces in drawn:
        for piece in pieces:
            line = " ".join(f"{x_at(step):.1f},{y_at(value):.1f}" for step, value in piece)
            parts.append(f'<polyline class="curve l{tone}" points="{line}"/>')
        if sum(map(len, pieces)) <= FEW_POINTS:
            parts += [
                f'<circle class="s{tone}" cx="{x_at(step):.1f}" cy="{y_at(value):.1f}" r="2.5">'
                f"<title>{escape(each.name)}, step {step:g}: {value:.4g}</title></circle>"
                for piece in pieces
                for step, value in piece
            ]
    if is_cut:
        parts.append(f'<text class="lane" x="{WIDTH - RIGHT}" y="{TOP + 10}">↑ peak cut off</text>')
    return small_plot(title, parts)


def _top(values: Sequence[float]) -> tuple[float, bool]:
    """Upper end of the axis, and whether peaks are above it."""
    heights = sorted(values)
    usual, peak = heights[int(0.9 * (len(heights) - 1))], heights[-1]
    is_cut = peak > PEAK_CUT * usual > 0
    return max(usual * 1.3 if is_cut else peak * 1.05, 1e-9), is_cut
