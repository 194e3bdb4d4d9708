"""Whether numbers moved: between sources, within a source over time, between models, between runs.

The test is that of Kolmogorov and Smirnov on two histograms of one column, whose bins bound the distance from below. Clips
of one recording say much the same, so a recording counts as one observation, however many clips it has: with the clips
themselves, every difference between a million of them would be significant. P-values are asymptotic (Stephens 1970, with
the correction for small samples) and corrected over all tests of an audit after Holm (1979). A drift must be significant
and of some size; the population stability index and the shift of the mean in standard deviations are told beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa

from manifests.audit.recipe import Distribution, Drift
from manifests.audit.slices import SliceColumns, bounds_of, edges_of
from manifests.sketches import DistinctSketch

TEST = (
    "Kolmogorov-Smirnov on histograms, a recording as one observation; p-values after Holm over all tests of this audit; "
    "a drift is significant and at least of the smallest distance"
)
KINDS = ("run", "model", "time", "source")  # sources differ by nature, and come last
SOURCE, UNIT, RECORDING = "input.source", "clip.unit", "clip.recording_id"
OTHER = "other sources"
NEAR_EMPTY = 0.5  # clips that an empty bin counts as in the stability index


@dataclass(frozen=True)
class Sample:
    """One column of one side. ``counts`` are clips by bin as ``manifests.audit.slices.bins_of`` has them."""

    counts: np.ndarray
    num_recordings: float

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.counts + other.counts, self.num_recordings + other.num_recordings)

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.counts - other.counts, self.num_recordings - other.num_recordings)

    @property
    def num_clips(self) -> int:
        """Those with a value."""
        return int(self.counts[:-1].sum())


@dataclass(frozen=True)
class Compared:
    """One test. ``shift_std`` is the difference of means (``group`` minus ``against``) in standard deviations of both."""

    kind: str  # one of KINDS
    column: str
    group: str
    against: str
    num_clips: int
    num_recordings: int
    against_clips: int
    against_recordings: int
    distance: float
    stability_index: float
    shift_std: float
    p: float
    p_holm: float = 1.0
    is_drift: bool = False


@dataclass
class Periods:
    """Tally: histograms by source and span of time, and how many recordings each has.

    ``edges`` are the first units of all periods but the first: units come in order of time, and so do their names. Units have
    all clips of a recording; where rows are ``shuffled``, as in packs, several slices may have some, and sketches count them.
    """

    distributions: list[Distribution]
    edges: Sequence[str]
    rules: Drift
    has_source: bool
    is_shuffled: bool = False
    counts: dict[tuple[str, int], list[np.ndarray]] = field(default_factory=dict)
    num_recordings: dict[tuple[str, int], int] = field(default_factory=dict)
    sketches: dict[tuple[str, int], DistinctSketch] = field(default_factory=dict)

    @property
    def columns(self) -> Sequence[str]:
        return [UNIT, RECORDING, *([SOURCE] if self.has_source else []), *(d.column for d in self.distributions)]

    def add(self, slice_: SliceColumns) -> None:
        units, names = slice_.coded(UNIT)
        period = np.searchsorted(np.array(self.edges, str), np.array(names.to_pylist(), str), side="right")
        sources, labels = slice_.coded(SOURCE) if self.has_source else (np.zeros(slice_.num_rows, np.int64), [None])
        num = len(self.edges) + 1
        places = sources * num + period[units]
        keys = {int(place): (str(labels[int(place) // num] or "no source"), int(place) % num) for place in np.unique(places)}
        if self.is_shuffled:
            for place, key in keys.items():
                sketch = DistinctSketch()
                sketch.add(slice_.table[RECORDING].filter(pa.array(places == place)))
                self._join(key, 0, sketch)
        else:
            recordings = slice_.coded(RECORDING)
            firsts = np.empty(len(recordings.values), np.int64)
            firsts[recordings.codes[::-1]] = places[::-1]  # the last write is that of a recording's first clip
            counted = np.bincount(firsts, minlength=len(labels) * num)
            for place, key in keys.items():
                self._join(key, int(counted[place]), None)
        for number, d in enumerate(self.distributions):
            width = d.num_bins + 3
            joint = np.bincount(places * width + slice_.bins(d.column, bounds_of(d)), minlength=len(labels) * num * width)
            for place, key in keys.items():
                self._held(key)[number] += joint[place * width : (place + 1) * width]
        self._bound()

    def merge(self, other: Self) -> None:
        for key, counts in other.counts.items():
            for mine, more in zip(self._held(key), counts, strict=True):
                mine += more
            self._join(key, other.num_recordings[key], other.sketches.get(key))
        self._bound()

    def samples(self) -> dict[str, dict[tuple[str, int], Sample]]:
        """column -> (source, period) -> sample."""
        return {
            d.column: {key: Sample(counts[number], self.num_recordings[key]) for key, counts in sorted(self.counts.items())}
            for number, d in enumerate(self.distributions)
        }

    def _held(self, key: tuple[str, int]) -> list[np.ndarray]:
        if key not in self.counts:
            self.counts[key] = [np.zeros(d.num_bins + 3, np.int64) for d in self.distributions]
        return self.counts[key]

    def _join(self, key: tuple[str, int], num: int, sketch: DistinctSketch | None) -> None:
        """Count recordings that nobody has counted, or, of a sketch, those of them."""
        if sketch is None:
            self.num_recordings[key] = self.num_recordings.get(key, 0) + num
            return
        self.sketches.setdefault(key, DistinctSketch()).merge(sketch)
        self.num_recordings[key] = self.sketches[key].estimate

    def _bound(self) -> None:
        """Keep the largest sources by name; what more there are is one."""
        sources: dict[str, int] = {}
        for (source, _), num in self.num_recordings.items():
            sources[source] = sources.get(source, 0) + num
        if len(sources) <= self.rules.most_sources + 1:
            return
        kept = set(sorted(sources, key=lambda source: (source == OTHER, -sources[source]))[: self.rules.most_sources])
        for key in [key for key in self.counts if key[0] not in kept and key[0] != OTHER]:
            other = (OTHER, key[1])
            for mine, more in zip(self._held(other), self.counts.pop(key), strict=True):
                mine += more
            self._join(other, self.num_recordings.pop(key), self.sketches.pop(key, None))


def period_edges(units: Sequence[str], num_periods: int) -> list[str]:
    """Where units in plan order are cut into so many spans, as long as there are as many."""
    num = max(1, min(num_periods, len(units)))
    return [units[len(units) * place // num] for place in range(1, num)]


def compare_periods(periods: Periods) -> list[Compared]:
    """Each source with all others; within each source each span of time with the source's others."""
    found, fewest = list[Compared](), periods.rules.fewest_recordings
    last = len(periods.edges)
    for distribution, by_key in zip(periods.distributions, periods.samples().values(), strict=True):
        none = Sample(np.zeros(distribution.num_bins + 3, np.int64), 0)
        by_source: dict[str, Sample] = {}
        for (source, _), sample in by_key.items():
            by_source[source] = by_source.get(source, none) + sample
        total = sum(by_source.values(), none)
        for source, sample in by_source.items():
            if len(by_source) > 1:
                found += compared("source", distribution, source, sample, "all other sources", total - sample, fewest)
            for period in range(last + 1):
                now = by_key.get((source, period), none)
                names = f"{source}, part {period + 1} of {last + 1}", f"{source}, other parts"
                found += compared("time", distribution, names[0], now, names[1], sample - now, fewest)
    return found


def compared(
    kind: str, distribution: Distribution, group: str, one: Sample, against: str, two: Sample, fewest: int
) -> list[Compared]:
    """The test of two samples of a column; none where a side has fewer recordings, or no values."""
    if min(one.num_recordings, two.num_recordings) < fewest or not (one.num_clips and two.num_clips):
        return []
    distance = ks_distance(one.counts, two.counts)
    sizes = (one.num_clips, int(one.num_recordings), two.num_clips, int(two.num_recordings))
    p = ks_p_value(distance, one.num_recordings, two.num_recordings)
    shift = shift_std(distribution, one.counts, two.counts)
    index = stability_index(one.counts, two.counts)
    return [Compared(kind, distribution.column, group, against, *sizes, distance, index, shift, p)]


def ks_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference of the two cumulated shares, at the edges of bins."""
    shares = [np.cumsum(counts[:-1]) / counts[:-1].sum() for counts in (one, two)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_p_value(distance: float, num_one: float, num_two: float) -> float:
    """Chance of such a distance between two samples of one distribution (Stephens 1970, Press et al. 2007, 14.3.3)."""
    root = math.sqrt(num_one * num_two / (num_one + num_two))
    at = (root + 0.12 + 0.11 / root) * distance
    if at < 0.2:  # the series does not converge, and the chance is 1 to fifteen digits
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * at) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))


def stability_index(one: np.ndarray, two: np.ndarray) -> float:
    """Population stability index over ten bins of about equal share of both: 0.1 is some shift, 0.25 a large one."""
    both = one[:-1] + two[:-1]
    tenth = np.minimum(9, (np.cumsum(both) - both / 2) * 10 // max(1, both.sum())).astype(int)
    sums = [np.bincount(tenth, counts[:-1], 10) for counts in (one, two)]
    kept = [np.maximum(s, NEAR_EMPTY)[np.unique(tenth)] for s in sums]
    a, b = (k / k.sum() for k in kept)
    return float(((a - b) * np.log(a / b)).sum())


def shift_std(distribution: Distribution, one: np.ndarray, two: np.ndarray) -> float:
    """Difference of the means of the histograms over their pooled standard deviation."""
    edges = edges_of(bounds_of(distribution))
    middles = np.concatenate([[edges[0]], (edges[1:] + edges[:-1]) / 2, [edges[-1]]])
    means, variances, sizes = [], [], []
    for counts in (one[:-1], two[:-1]):
        mean = float((counts * middles).sum() / counts.sum())
        means.append(mean)
        variances.append(float((counts * (middles - mean) ** 2).sum() / counts.sum()))
        sizes.append(float(counts.sum()))
    pooled = math.sqrt(sum(v * n for v, n in zip(variances, sizes, strict=True)) / sum(sizes))
    return (means[0] - means[1]) / pooled if pooled else 0.0


def judged(tests: Iterable[Compared], rules: Drift) -> list[Compared]:
    """With p-values after Holm, and whether each is a drift: those first, in the order of KINDS, the largest distance first."""
    ordered = sorted(tests, key=lambda test: test.p)
    made, least = [], 0.0
    for rank, test in enumerate(ordered):
        least = max(least, min(1.0, test.p * (len(ordered) - rank)))
        is_drift = least < rules.alpha and test.distance >= rules.smallest_distance
        made.append(replace(test, p_holm=least, is_drift=is_drift))
    return sorted(made, key=lambda test: (not test.is_drift, KINDS.index(test.kind), -test.distance, test.column, test.group))


def compare_runs(
    one: Sequence[Mapping[str, Any]],
    two: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    recordings: tuple[float, float],
    fewest: int,
) -> list[Compared]:
    """The ``distributions`` of two audits, column by column where their bins are the same."""
    before = {row["column"]: row for row in two}
    found = []
    for row in one:
        other = before.get(row["column"])
        if other is not None and other["edges"] == row["edges"]:
            edges = row["edges"]
            distribution = Distribution(
                column=row["column"], title=row["title"], low=edges[0], high=edges[-1], num_bins=len(edges) - 1
            )
            samples = [Sample(_counts(r), num) for r, num in zip((row, other), recordings, strict=True)]
            found += compared("run", distribution, names[0], samples[0], names[1], samples[1], fewest)
    return found


def _counts(row: Mapping[str, Any]) -> np.ndarray:
    return np.array([row["num_below"], *row["num_clips_by_bin"], row["num_above"], 0])
