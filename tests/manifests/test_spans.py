from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from manifests.spans import Span, clamp, intersect, merge, near, overlapped, rescale, total

spans = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 40), st.integers(0, 12))
span_lists = st.lists(spans, max_size=8)
rates_hz = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000])


def samples(found: list[Span]) -> set[int]:
    return {sample for span in found for sample in range(*span)}


def is_flat(found: list[Span]) -> bool:
    return all(a.end_sample < b.start_sample for a, b in pairwise(found))


@given(span_lists)
def test_merge_covers_the_same_samples_with_disjoint_spans(found: list[Span]) -> None:
    flat = merge(found)
    assert samples(flat) == samples(found)
    assert is_flat(flat)
    assert total(flat) == len(samples(found))


@given(span_lists, st.integers(0, 6))
def test_merge_closes_gaps_up_to_the_bound_and_no_larger(found: list[Span], gap: int) -> None:
    flat = merge(found, gap)
    assert all(b.start_sample - a.end_sample > gap for a, b in pairwise(flat))
    bare = merge(found)
    closed = {
        sample
        for a, b in pairwise(bare)
        if b.start_sample - a.end_sample <= gap
        for sample in range(a.end_sample, b.start_sample)
    }
    assert samples(flat) == samples(found) | closed


@given(span_lists, span_lists)
def test_intersect_is_the_common_samples(left: list[Span], right: list[Span]) -> None:
    assert samples(intersect(merge(left), merge(right))) == samples(left) & samples(right)


@given(span_lists, spans)
def test_near_is_what_shares_samples(found: list[Span], span: Span) -> None:
    flat = merge(found)
    assert list(near(flat, span)) == [other for other in flat if samples([other]) & samples([span])] or not span.num_samples


@given(span_lists, st.integers(0, 50))
def test_clamp_keeps_what_lies_inside(found: list[Span], num_samples: int) -> None:
    assert samples(clamp(found, num_samples)) == samples(found) & set(range(num_samples))


@given(st.lists(st.tuples(spans, st.sampled_from("abc")), max_size=8))
def test_overlapped_is_where_two_labels_speak(turns: list[tuple[Span, str]]) -> None:
    labels: dict[int, set[str]] = {}
    for span, label in turns:
        for sample in range(*span):
            labels.setdefault(sample, set()).add(label)
    flat = overlapped(turns)
    assert samples(flat) == {sample for sample, who in labels.items() if len(who) > 1}
    assert is_flat(flat)


@given(st.integers(0, 10**9), st.integers(0, 10**7), rates_hz, rates_hz)
def test_rescale_stays_within_half_a_sample(start: int, length: int, source: int, target: int) -> None:
    span = Span(start, start + length)
    scaled = rescale(span, source, target)
    for before, after in zip(span, scaled, strict=True):
        assert abs(after * source - before * target) * 2 <= source
    if target >= source:
        assert rescale(scaled, target, source) == span


@given(spans, spans, rates_hz, rates_hz)
def test_rescale_keeps_neighbours_apart(left: Span, right: Span, source: int, target: int) -> None:
    if left.end_sample <= right.start_sample:
        assert rescale(left, source, target).end_sample <= rescale(right, source, target).start_sample
