from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.figures import histogram
from manifests.plots import curve_svg, histogram_svg, nice_step, timeline_svg
from manifests.timeline import Bar, Lane, Timeline


def drawn(svg: str) -> list[ElementTree.Element]:
    """The drawings; parsing fails on anything that is not well-formed."""
    return list(ElementTree.fromstring(f"<page>{svg}</page>"))


def rects(svg: str, kind: str) -> list[ElementTree.Element]:
    return [r for page in drawn(svg) for r in page.iter("rect") if r.get("class") == kind]


def timeline(duration_s: float, bars: list[Bar]) -> Timeline:
    return Timeline("a <b>.wav", duration_s, duration_s, [0.5] * round(duration_s * 20), [Lane("reference", "<ada>", bars)])


def test_bars_lie_where_the_turns_are() -> None:
    svg = timeline_svg(timeline(20.0, [Bar(5.0, 10.0, 0, "x & y")]))
    (bar,) = rects(svg, "s0")
    (track,) = rects(svg, "track")
    begin, width = float(track.get("x", 0)), float(track.get("width", 0))
    assert float(bar.get("x", 0)) == pytest.approx(begin + width / 4, abs=0.1)
    assert float(bar.get("width", 0)) == pytest.approx(width / 4, abs=0.1)
    assert bar.findtext("title") == "x & y"


def test_a_turn_over_the_edge_of_a_row_is_on_both() -> None:
    svg = timeline_svg(timeline(60.0, [Bar(25.0, 35.0, 0, "")]))
    assert len(drawn(svg)) == 2
    assert len(rects(svg, "s0")) == 2


def test_nothing_is_drawn_of_nothing() -> None:
    assert timeline_svg(timeline(0.0, [])) == ""
    assert histogram_svg(histogram([], "t")) == ""
    assert curve_svg([], "t") == ""


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
def test_a_histogram_has_a_bar_for_each_bin(found: list[float]) -> None:
    made = histogram(found, "score <1 & up>")
    assert len(rects(histogram_svg(made), "bin")) == len(made["counts"])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1e4)), min_size=1, max_size=30, unique_by=lambda p: p[0]))
def test_a_curve_stays_within_its_box(points: list[tuple[int, float]]) -> None:
    (svg,) = drawn(curve_svg(sorted(points), "loss", level=3.0))
    line = next(iter(svg.iter("polyline"))).get("points", "")
    for point in line.split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 360
        assert 0 <= y <= 190


def test_a_loss_that_is_not_finite_leaves_a_gap() -> None:
    (svg,) = drawn(curve_svg([(0, 1.0), (1, float("nan")), (2, 0.5)], "loss"))
    assert len(next(iter(svg.iter("polyline"))).get("points", "").split()) == 2


def test_a_lone_peak_is_cut_and_told() -> None:
    (svg,) = drawn(curve_svg([(step, 145.0 if step == 7 else 2.0) for step in range(100)], "loss"))
    ys = [float(point.split(",")[1]) for point in next(iter(svg.iter("polyline"))).get("points", "").split()]
    assert min(ys) == ys[7]
    assert ys[0] < 190 / 2  # the rest is not pressed to the ground
    assert any(text.text == "↑ peak cut off" for text in svg.iter("text"))


@given(st.floats(1e-6, 1e6), st.integers(2, 12))
def test_steps_are_round_and_few(spread: float, most: int) -> None:
    step = nice_step(spread, most)
    assert spread / step <= most + 1e-6
    assert spread / step > most / 5.1 or most < 3
