"""Drawings of a report as inline SVG: no picture files, no script; colours are classes that the page's style fills in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from manifests.timeline import ENVELOPE_POINTS_A_S, Lane, Timeline

ROW_S = 30.0  # a row of the timeline; narrower, and turns of a word could not be seen
LABEL_W, ROW_W, LANE_H, ENVELOPE_H, GAP_H, AXIS_H = 118, 880, 20, 40, 7, 24
WIDTH, HEIGHT = 360, 190  # of the small plots
PEAK_CUT = 3.0  # a peak is cut when it is this many times the 90th percentile
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 12, 26


def timeline_svg(timeline: Timeline) -> str:
    """One drawing for each ROW_S of the recording, one below the other."""
    if timeline.shown_s <= 0:
        return ""
    num_rows = max(1, math.ceil(timeline.shown_s / ROW_S - 0.1))  # a rest of up to 3 s does not deserve a row
    row_s = timeline.shown_s / num_rows
    return "".join(_timeline_row(timeline, row * row_s, row_s) for row in range(num_rows))


def _timeline_row(timeline: Timeline, begin_s: float, row_s: float) -> str:
    def at(time_s: float) -> float:
        return LABEL_W + ROW_W * min(1.0, max(0.0, (time_s - begin_s) / row_s))

    parts = [_envelope_path(timeline, begin_s, row_s)] if timeline.envelope else []
    y = float(ENVELOPE_H if timeline.envelope else 0)
    group = ""
    for lane in timeline.lanes:
        y += GAP_H if lane.group != group else 2
        group = lane.group
        parts.append(f'<text class="lane" x="{LABEL_W - 8}" y="{y + LANE_H * 0.7:.1f}">{escape(_lane_title(lane))}</text>')
        parts.append(f'<rect class="track" x="{LABEL_W}" y="{y:.1f}" width="{ROW_W}" height="{LANE_H}"/>')
        for bar in lane.bars:
            if bar.end_s > begin_s and bar.start_s < begin_s + row_s:
                x, end = at(bar.start_s), at(bar.end_s)
                place = f'x="{x:.1f}" y="{y + 2:.1f}" width="{max(1.0, end - x):.1f}" height="{LANE_H - 4}" rx="2"'
                parts.append(f'<rect class="{_tone(lane, bar.tone)}" {place}><title>{escape(bar.hint)}</title></rect>')
        y += LANE_H
    step_s = nice_step(row_s, 10)
    for tick in range(math.ceil(begin_s / step_s), math.floor((begin_s + row_s) / step_s) + 1):
        x = at(tick * step_s)
        parts.insert(0, f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y + 4:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 18:.1f}">{tick * step_s:g} s</text>')
    box = f"0 0 {LABEL_W + ROW_W + 14} {y + AXIS_H:.0f}"
    title = f"{timeline.recording}, {begin_s:.0f} to {begin_s + row_s:.0f} s"
    return f'<svg class="timeline" viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _lane_title(lane: Lane) -> str:
    if lane.group in ("VAD", "errors"):
        return lane.group
    label = lane.label if len(lane.label) <= 11 else lane.label[:10] + "…"
    return f"{'ref' if lane.group == 'reference' else 'ours'} {label}"


def _tone(lane: Lane, tone: int | None) -> str:
    if lane.group == "errors":
        return f"e{tone}"
    return "nobody" if tone is None else f"s{tone % 6}"


def _envelope_path(timeline: Timeline, begin_s: float, row_s: float) -> str:
    first, last = round(begin_s * ENVELOPE_POINTS_A_S), round((begin_s + row_s) * ENVELOPE_POINTS_A_S)
    peaks = timeline.envelope[first:last]
    step, middle = ROW_W / max(1, last - first), ENVELOPE_H / 2
    xs = [LABEL_W + (i + 0.5) * step for i in range(len(peaks))]
    upper = [f"{x:.1f},{middle - peak * (middle - 2):.1f}" for x, peak in zip(xs, peaks, strict=True)]
    lower = [f"{x:.1f},{middle + peak * (middle - 2):.1f}" for x, peak in zip(xs, peaks, strict=True)]
    label = f'<text class="lane" x="{LABEL_W - 8}" y="{middle + 4:.1f}">audio</text>'
    return f'{label}<polygon class="wave" points="{" ".join(upper + lower[::-1])}"/>' if peaks else label


def histogram_svg(facts: dict[str, Any]) -> str:
    """Bars of a ``figures.histogram`` with its median as a line; empty where there are no values."""
    if not facts["num"]:
        return ""
    edges, counts = facts["edges"], facts["counts"]
    top = max(counts)

    def x_at(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - edges[0]) / (edges[-1] - edges[0])

    def y_at(count: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * count / top

    parts = [level_line(y_at(count), f"{count:g}") for count in ticks(0, top, 4) if count == round(count)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        x, y = x_at(low), y_at(count)
        place = f'x="{x + 1:.1f}" y="{y:.1f}" width="{max(1.0, x_at(high) - x - 2):.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
        parts.append(f'<rect class="bin" {place}><title>{low:g} to {high:g}: {count}</title></rect>')
    parts += [tick_below(x_at(value), f"{value:g}") for value in ticks(edges[0], edges[-1], 6)]
    middle = x_at(facts["p50"])
    parts.append(f'<line class="median" x1="{middle:.1f}" x2="{middle:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    return small_plot(facts["title"], parts)


def curve_svg(points: Sequence[tuple[float, float]], title: str, level: float | None = None) -> str:
    """A curve over steps from zero up; ``level`` draws a dashed line to compare with.

    A few peaks far above the rest (a first step, a spike) are cut off at the frame, which says so.
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return ""
    heights = sorted(value for _, value in finite)
    usual, peak = heights[int(0.9 * (len(heights) - 1))], heights[-1]
    is_cut = peak > PEAK_CUT * usual > 0
    top = max(usual * 1.3 if is_cut else peak * 1.05, (level or 0.0) * 1.05, 1e-9)
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)

    def x_at(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)

    def y_at(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [level_line(y_at(value), f"{value:g}") for value in ticks(0, top, 5)]
    parts += [tick_below(x_at(step), f"{step:g}") for step in ticks(first, last, 5)]
    if level is not None:
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_at(level):.1f}" y2="{y_at(level):.1f}"/>')
    if is_cut:
        parts.append(f'<text class="lane" x="{WIDTH - RIGHT}" y="{TOP + 10}">↑ peak cut off</text>')
    line = " ".join(f"{x_at(step):.1f},{y_at(min(value, top)):.1f}" for step, value in finite)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    return small_plot(title, parts)


def nice_step(spread: float, most: int) -> float:
    """The smallest of 1, 2, 5 x 10^k that divides ``spread`` into at most ``most`` parts."""
    ten = 10.0 ** math.floor(math.log10(spread / most))
    return next(ten * factor for factor in (1, 2, 5, 10) if spread / (ten * factor) <= most + 1e-9)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between the two, at most about ``most``."""
    step = nice_step(high - low, most)
    return [round(i * step, 9) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def level_line(y: float, text: str) -> str:
    """A grid line across a small plot with its value to the left."""
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="lane" x="{LEFT - 6}" y="{y + 4:.1f}">{text}</text>'


def tick_below(x: float, text: str) -> str:
    """A value below the axis of a small plot."""
    return f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}">{text}</text>'


def small_plot(title: str, parts: Sequence[str]) -> str:
    """A drawing of WIDTH by HEIGHT."""
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
