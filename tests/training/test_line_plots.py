from __future__ import annotations

import math
import re

import pytest

from manifests.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from training.line_plots import FEW_POINTS, Series, Stretch, lines_svg


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline class="curve l(\d)" points="([^"]*)"', svg)
    assert [int(tone) for tone, _ in found] == list(range(len(found)))
    return [[tuple(map(float, pair.split(","))) for pair in points.split()] for _, points in found]  # type: ignore[misc]


def test_curves_share_both_axes() -> None:
    first, second = points_of(lines_svg("t", [Series("a", [[(10, 0.0), (20, 1.0)]]), Series("b", [[(15, 2.0), (20, 2.0)]])]))
    assert first[0] == (LEFT, HEIGHT - BOTTOM)
    assert (first[1][0], second[1][0]) == (WIDTH - RIGHT, WIDTH - RIGHT)
    assert second[0][0] == (LEFT + WIDTH - RIGHT) / 2
    floor = HEIGHT - BOTTOM
    assert (floor - second[0][1]) == pytest.approx(2 * (floor - first[1][1]), abs=0.2)


def test_what_is_not_finite_is_left_out_and_nothing_is_no_drawing() -> None:
    assert lines_svg("t", [Series("a", []), Series("b", [[(1, math.nan)]])]) == ""
    ((one, two),) = points_of(lines_svg("t", [Series("a", [[(1, 1.0), (2, math.inf), (3, 1.0)]])]))
    assert one[1] == two[1]


def test_a_peak_is_cut_off_and_said() -> None:
    usual = [(float(step), 1.0) for step in range(50)]
    assert "peak cut off" not in lines_svg("t", [Series("a", [usual])])
    svg = lines_svg("t", [Series("a", [[*usual, (50.0, 100.0)]])])
    assert "peak cut off" in svg
    assert points_of(svg)[0][-1] == (WIDTH - RIGHT, TOP)


def test_stages_and_marks_stand_behind_the_curves() -> None:
    svg = lines_svg("t", [Series("<a>", [[(1, 1.0), (9, 1.0)]])], [Stretch("one & two", 1, 5), Stretch("b", 5, 9)], marks=[3, 99])
    assert "one &amp; two" in svg
    assert "&lt;a&gt;, step 9" in svg
    assert svg.count('class="mark"') == 1
    assert svg.index('class="stretch1"') < svg.index("polyline")


def test_points_are_drawn_where_they_are_few() -> None:
    many = [(float(step), 1.0) for step in range(FEW_POINTS + 1)]
    assert lines_svg("t", [Series("a", [many[:FEW_POINTS]])]).count("<circle") == FEW_POINTS
    assert "<circle" not in lines_svg("t", [Series("a", [many])])


def test_pieces_leave_gaps() -> None:
    svg = lines_svg("t", [Series("a", [[(1, 1.0), (2, 1.0)], [], [(5, 1.0), (6, 1.0)]])])
    assert svg.count('<polyline class="curve l0"') == 2
