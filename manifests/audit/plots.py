"""Drawings of an audit's figures, as small inline SVGs (``manifests.plots``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, level_line, small_plot, tick_below, ticks

MOST_BINS, FEWEST_BINS = 48, 8
TAIL = 0.001  # share of the hours at either end of a histogram that is not drawn


def distribution_svg(facts: Mapping[str, Any]) -> str:
    """Hours by bin of a distribution, its quartiles as lines; empty where nothing lies in a bin."""
    edges, hours = _drawn_bins(facts["edges"], facts["clip_h_by_bin"])
    top = max(hours, default=0.0)
    if top <= 0:
        return ""

    def x_at(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - edges[0]) / (edges[-1] - edges[0])

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    unit, scale = _unit(top)
    parts = [level_line(y_at(value / scale), f"{value:g} {unit}") for value in ticks(0, top * scale, 3) if value > 0]
    for low, high, value in zip(edges, edges[1:], hours, strict=False):
        x, y = x_at(low), y_at(value)
        place = f'x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(1.0, x_at(high) - x - 1):.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
        parts.append(f'<rect class="bin" {place}><title>{low:.4g} to {high:.4g}: {value:.3g} h</title></rect>')
    parts += [tick_below(x_at(value), f"{value:g}") for value in ticks(edges[0], edges[-1], 6)]
    for name, tone in (("p25", "level"), ("p50", "median"), ("p75", "level")):
        value = facts["quantiles"].get(name)
        if value is not None and edges[0] <= value <= edges[-1]:
            parts.append(_upright(x_at(value), tone, f"{name} {value:.4g}"))
    return small_plot(facts["title"], parts)


def what_if_svg(facts: Mapping[str, Any], all_h: float) -> str:
    """Hours kept over one threshold, all other filters as they are; the threshold of the recipe as a line."""
    thresholds, kept = facts["thresholds"], facts["clip_h_kept"]
    if not all_h:
        return ""
    low, high = thresholds[0], thresholds[-1]

    def x_at(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (min(max(value, low), high) - low) / (high - low)

    def y_at(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [level_line(y_at(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts += [tick_below(x_at(value), f"{value:g}") for value in ticks(low, high, 6)]
    line = " ".join(f"{x_at(value):.1f},{y_at(hours / all_h):.1f}" for value, hours in zip(thresholds, kept, strict=True))
    parts.append(f'<polyline class="curve" points="{line}"/>')
    parts.append(_upright(x_at(facts["at"]), "median", f"{facts['bound']} {facts['at']:g}"))
    return small_plot(f"share of all hours kept, by {facts['bound']} of {facts['column']}", parts)


def _unit(hours: float) -> tuple[str, float]:
    """(unit of time in which so many hours are a handy number, how many of it are in an hour)."""
    return next(((unit, scale) for unit, scale in (("h", 1.0), ("min", 60.0)) if hours * scale >= 3), ("s", 3600.0))


def _upright(x: float, tone: str, title: str) -> str:
    return f'<line class="{tone}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"><title>{title}</title></line>'


def _drawn_bins(edges: list[float], hours: list[float]) -> tuple[list[float], list[float]]:
    """Without the thin tails, and at most MOST_BINS of them: neighbours are put together."""
    total, first, last = sum(hours), 0, len(hours)
    cut = 0.0
    while first < last - 1 and cut + hours[first] <= TAIL * total:
        cut, first = cut + hours[first], first + 1
    cut = 0.0
    while last > first + 1 and cut + hours[last - 1] <= TAIL * total:
        cut, last = cut + hours[last - 1], last - 1
    while last - first < min(FEWEST_BINS, len(hours)):  # one bar alone would fill the drawing
        first, last = max(0, first - 1), min(len(hours), last + 1)
    step = -(-(last - first) // MOST_BINS)
    starts = list(range(first, last, step))
    return [edges[at] for at in starts] + [edges[last]], [sum(hours[at : min(at + step, last)]) for at in starts]
