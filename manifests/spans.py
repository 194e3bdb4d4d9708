"""Half-open spans of samples, ``[start_sample, end_sample)``, and the arithmetic on lists of them.

A list of spans is *flat* when it is sorted and disjoint. All positions are relative to the start of the recording,
at one rate that the caller knows; seconds never take part in arithmetic (float seconds drift).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """``[start_sample, end_sample)``."""

    start_sample: int
    end_sample: int

    @property
    def num_samples(self) -> int:
        return self.end_sample - self.start_sample


def merge(spans: Iterable[Span], gap_samples: int = 0) -> list[Span]:
    """Flat list that covers the same samples; neighbours at most ``gap_samples`` apart become one."""
    flat: list[Span] = []
    for span in sorted(s for s in spans if s.num_samples > 0):
        if flat and span.start_sample - flat[-1].end_sample <= gap_samples:
            flat[-1] = Span(flat[-1].start_sample, max(flat[-1].end_sample, span.end_sample))
        else:
            flat.append(span)
    return flat


def near(flat: Sequence[Span], span: Span) -> Sequence[Span]:
    """The spans of a flat list that share samples with ``span``; a day of speech is not walked for one clip."""
    first = bisect_right(flat, span.start_sample, key=lambda other: other.end_sample)
    return flat[first : bisect_left(flat, span.end_sample, key=lambda other: other.start_sample)]


def intersect(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """Flat list of the samples that lie in both flat lists."""
    common: list[Span] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start = max(left[i].start_sample, right[j].start_sample)
        end = min(left[i].end_sample, right[j].end_sample)
        if start < end:
            common.append(Span(start, end))
        if left[i].end_sample < right[j].end_sample:
            i += 1
        else:
            j += 1
    return common


def clamp(spans: Iterable[Span], num_samples: int) -> list[Span]:
    """The parts of the spans that lie in ``[0, num_samples)``; empty ones are left out."""
    cut = (Span(max(0, s.start_sample), min(num_samples, s.end_sample)) for s in spans)
    return [s for s in cut if s.num_samples > 0]


def total(spans: Iterable[Span]) -> int:
    """Samples in the spans, counted once for each span that holds them."""
    return sum(s.num_samples for s in spans)


def rescale(span: Span, from_rate_hz: int, to_rate_hz: int) -> Span:
    """The span at another rate; both edges round to the nearest sample (half away from zero)."""
    if from_rate_hz == to_rate_hz:
        return span

    def edge(sample: int) -> int:
        return (2 * sample * to_rate_hz + from_rate_hz) // (2 * from_rate_hz)

    return Span(edge(span.start_sample), edge(span.end_sample))


def overlapped(turns: Sequence[tuple[Span, str]]) -> list[Span]:
    """Flat list of the samples in which at least two labels speak."""
    by_label: dict[str, list[Span]] = {}
    for span, label in turns:
        by_label.setdefault(label, []).append(span)
    edges: list[tuple[int, int]] = []
    for spans in by_label.values():
        for span in merge(spans):
            edges += [(span.start_sample, 1), (span.end_sample, -1)]
    overlap: list[Span] = []
    active, since = 0, 0
    for sample, change in sorted(edges):
        if active >= 2 and sample > since:
            overlap.append(Span(since, sample))
        active, since = active + change, sample
    return merge(overlap)
