"""The filter funnel: what thresholds leave out, in order, alone, together, and what each would at any other value.

One pass counts clips and seconds by the set of filters that a clip fails, which answers every question of which filters to
have; and for each bound, among the clips that pass all other filters, by bins of its column: every threshold's price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.recipe import Threshold
from manifests.audit.slices import Bounds, SliceColumns, edges_of
from manifests.clip_texts import clip_texts, text_needs

MOST_FILTERS = 16  # sets of filters that a clip fails are numbers of so many bits
NO_TEXT = "no_text"


class PlainFilter(Protocol):
    """A filter that has no threshold to move, and comes before those that do."""

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> Sequence[str]: ...

    def fails(self, slice_: SliceColumns) -> np.ndarray:
        """Bool ``[rows]``."""


@dataclass(frozen=True)
class LeftOut:
    """Clips that a decision table has a drop_reason for, whichever."""

    table: str

    @property
    def name(self) -> str:
        return f"{self.table}.drop_reason"

    @property
    def columns(self) -> Sequence[str]:
        return [self.name]

    def fails(self, slice_: SliceColumns) -> np.ndarray:
        return _plain(pc.is_valid(slice_.table[self.name]))


@dataclass(frozen=True)
class TextNeed:
    """Clips that have no text in any of the columns (``manifests.clip_texts``)."""

    texts: tuple[str, ...]
    name: str = NO_TEXT

    @property
    def columns(self) -> Sequence[str]:
        return text_needs(self.texts)

    def fails(self, slice_: SliceColumns) -> np.ndarray:
        lacks = np.ones(slice_.num_rows, bool)
        for column in self.texts:
            lacks &= _plain(pc.is_null(clip_texts(slice_.table, column)))
        return lacks


@dataclass(frozen=True)
class CodesNeed:
    """Clips of which a layer of codes has none."""

    layer: str

    @property
    def name(self) -> str:
        return f"{self.layer}.error"

    @property
    def columns(self) -> Sequence[str]:
        return [f"{self.layer}.status"]

    def fails(self, slice_: SliceColumns) -> np.ndarray:
        return ~_plain(pc.fill_null(pc.equal(slice_.table[f"{self.layer}.status"], "ok"), False))


def _plain(mask: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.asarray(mask)


@dataclass
class Funnel:
    """Tally of filters in their order, the plain ones first. ``scales`` are the bins of each filter's column."""

    filters: list[Threshold]
    scales: list[Bounds]
    plain: tuple[PlainFilter, ...] = ()
    sets: dict[int, list[float]] = field(default_factory=dict)  # failed filters as bits -> [clips, seconds]
    curves: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)  # (filter, min | max) -> [2, bins + 3]

    @property
    def columns(self) -> Sequence[str]:
        return [*(f.column for f in self.filters), *(name for f in self.plain for name in f.columns)]

    @property
    def names(self) -> list[str]:
        """Of the steps, in their order; the number of a step is its bit."""
        return [*(f.name for f in self.plain), *(f.drop_reason for f in self.filters)]

    def add(self, slice_: SliceColumns) -> None:
        fails = [f.fails(slice_) for f in self.plain]
        shift = len(fails)
        fails += [_outside(slice_.floats(f.column), f.min, f.max, f.drop_null) for f in self.filters]
        failed = np.zeros(slice_.num_rows, np.int64)
        for bit, mask in enumerate(fails):
            failed |= mask.astype(np.int64) << bit
        num = 1 << len(fails)
        counts, seconds = np.bincount(failed, minlength=num), np.bincount(failed, slice_.seconds, num)
        for bits in np.flatnonzero(counts).tolist():
            self._count(bits, float(counts[bits]), float(seconds[bits]))
        for number, f in enumerate(self.filters):
            passes_others = (failed & ~(1 << (number + shift))) == 0
            values = slice_.floats(f.column)
            for bound, low, high in (("min", None, f.max), ("max", f.min, None)):
                if getattr(f, bound) is not None:
                    # A value on the bound is kept, so a bin must have on its own side what lies on its edge.
                    places = slice_.bins(f.column, self.scales[number], closed_above=bound == "max")
                    some = passes_others & ~_outside(values, low, high, f.drop_null)
                    self._count_bins(number, bound, places[some], slice_.seconds[some])

    def merge(self, other: Self) -> None:
        for bits, (num, seconds) in other.sets.items():
            self._count(bits, num, seconds)
        for key, sums in other.curves.items():
            self.curves[key] = self.curves[key] + sums if key in self.curves else sums

    def _count(self, bits: int, num: float, seconds: float) -> None:
        before = self.sets.setdefault(bits, [0, 0.0])
        before[0] += int(num)
        before[1] += seconds

    def _count_bins(self, number: int, bound: str, places: np.ndarray, seconds: np.ndarray) -> None:
        num = self.scales[number][2] + 3
        sums = np.stack([np.bincount(places, minlength=num), np.bincount(places, seconds, num)])
        key = (number, bound)
        self.curves[key] = self.curves[key] + sums if key in self.curves else sums

    def figures(self) -> dict[str, Any]:
        """As ``manifests.audit.figures`` documents ``funnel``."""
        names = self.names
        total = self._where(lambda _: True)
        kept = self.sets.get(0, [0, 0.0])
        steps, before = [], 0
        for bit, name in enumerate(names):
            lost = self._where(lambda bits, bit=bit, before=before: bits >> bit & 1 and not bits & before)
            before |= 1 << bit
            steps.append(
                {"filter": name, **_hours("dropped", lost), **_hours("kept", self._where(lambda bits, b=before: not bits & b))}
            )
        alone = [{"filter": n, **_hours("dropped", self._where(lambda bits, b=b: bits >> b & 1))} for b, n in enumerate(names)]
        only = [{"filter": n, **_hours("dropped", self.sets.get(1 << b, [0, 0.0]))} for b, n in enumerate(names)]
        without = [
            {"filter": n, **_hours("kept", self._where(lambda bits, b=b: not bits & ~(1 << b)))} for b, n in enumerate(names)
        ]
        sets = [
            {"failed": [name for bit, name in enumerate(names) if bits >> bit & 1], **_hours("", sums)}
            for bits, sums in sorted(self.sets.items(), key=lambda item: -item[1][1])
        ]
        return {
            "filters": names,
            "columns": [None] * len(self.plain) + [f.column for f in self.filters],
            **_hours("all", total),
            **_hours("kept", kept),
            "steps": steps,
            "alone": alone,
            "only": only,
            "without": without,
            "sets": sets,
            "what_ifs": [self._what_if(number, bound, sums) for (number, bound), sums in sorted(self.curves.items())],
        }

    def _where(self, is_in: Any) -> list[float]:
        found = [sums for bits, sums in self.sets.items() if is_in(bits)]
        return [sum(int(sums[0]) for sums in found), sum(sums[1] for sums in found)]

    def _what_if(self, number: int, bound: str, sums: np.ndarray) -> dict[str, Any]:
        """Clips and hours kept with one bound at every edge of the bins, all else as it is."""
        f = self.filters[number]
        nulls = np.zeros(2) if f.drop_null else sums[:, -1]
        inside, none = sums[:, 1:-2], np.zeros((2, 1))
        if bound == "min":
            kept = np.concatenate([np.cumsum(inside[:, ::-1], axis=1)[:, ::-1], none], axis=1) + sums[:, -2:-1]
        else:
            kept = np.concatenate([none, np.cumsum(inside, axis=1)], axis=1) + sums[:, :1]
        kept = kept + nulls[:, None]
        return {
            "filter": f.drop_reason,
            "column": f.column,
            "bound": bound,
            "at": getattr(f, bound),
            "thresholds": edges_of(self.scales[number]).tolist(),
            "num_clips_kept": kept[0].astype(int).tolist(),
            "clip_h_kept": (kept[1] / 3600).tolist(),
        }


def _outside(values: np.ndarray, low: float | None, high: float | None, drop_null: bool) -> np.ndarray:
    """Bool ``[rows]``. NaN is a null here."""
    found = np.zeros(len(values), bool)
    if low is not None:
        found |= values < low
    if high is not None:
        found |= values > high
    return found | np.isnan(values) if drop_null else found


def _hours(what: str, sums: Sequence[float]) -> dict[str, float]:
    """``num_clips`` and ``clip_h``, with what they are of in front."""
    clips, hours = ("num_clips", "clip_h") if not what else (f"{what}_clips", f"{what}_h")
    return {clips: int(sums[0]), hours: sums[1] / 3600}
