from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annotators.speech_edges import refine_edges
from manifests.spans import Span, merge

HOP = 100
QUIET, LOUD = 1e-6, 1e-2


def powers(*runs: tuple[float, int]) -> np.ndarray:
    return np.concatenate([np.full(count, level, np.float32) for level, count in runs])


def test_late_and_early_edges_move_to_the_change_of_level() -> None:
    levels = powers((QUIET, 30), (LOUD, 40), (QUIET, 30))
    for start in range(2600, 3500, 100):
        for end in range(6600, 7500, 100):
            assert refine_edges([Span(start, end)], levels, HOP, 600) == [Span(3000, 7000)]


def test_an_edge_out_of_reach_stays_at_the_end_of_the_window_or_where_it_was() -> None:
    levels = powers((QUIET, 30), (LOUD, 40), (QUIET, 30))
    assert refine_edges([Span(3900, 7000)], levels, HOP, 600) == [Span(3900, 7000)], "no quiet in the window: no edge"
    assert refine_edges([Span(1000, 7000)], levels, HOP, 600) == [Span(1000, 7000)], "no loud in the window"


def test_without_contrast_edges_stay() -> None:
    flat = powers((1e-4, 30), (5e-4, 40), (1e-4, 30))
    assert refine_edges([Span(3350, 6950)], flat, HOP, 600) == [Span(3350, 6950)]
    assert refine_edges([Span(3350, 6950)], np.zeros(100), HOP, 600) == [Span(3350, 6950)]


def test_speech_on_both_sides_of_a_pause_shares_it_at_most() -> None:
    levels = powers((QUIET, 20), (LOUD, 60), (QUIET, 20))
    refined = refine_edges([Span(2500, 4900), Span(5100, 7500)], levels, HOP, 600)
    assert refined == [Span(2000, 4900), Span(5100, 8000)]


@given(
    st.lists(st.integers(0, 9_900), min_size=2, max_size=12, unique=True),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2_000),
)
def test_as_many_spans_in_order_disjoint_and_near(edges: list[int], seed: int, within: int) -> None:
    edges = sorted(edges)[: len(edges) // 2 * 2]
    spans = merge(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True))
    levels = 10.0 ** np.random.default_rng(seed).uniform(-8, 0, 99)
    refined = refine_edges(spans, levels, HOP, within)
    assert len(refined) == len(spans)
    assert all(span.num_samples > 0 for span in refined)
    assert all(a.end_sample <= b.start_sample for a, b in itertools.pairwise(refined))
    assert all(abs(a - b) <= within + HOP for old, new in zip(spans, refined, strict=True) for a, b in zip(old, new, strict=True))
