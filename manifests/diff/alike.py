"""What two snapshots of one corpus must have in common, told without reading a row.

A commit never changes: units of which both snapshots name the same commits, and hide the same rows, have the same rows in the same
order, and only columns of outputs that differ need be looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from manifests.clip_rows import SPEAKERS_TABLE
from manifests.corpus import Corpus
from manifests.rows import Slice
from manifests.schema import CLIPS
from manifests.snapshots import INGEST, Snapshot, clips_output, layer_output
from manifests.unit_rows import CorpusRows

TABLES = ("clips", "recordings", "inputs")


@dataclass(frozen=True)
class Overlap:
    """``alike`` are slices of units with equal rows, each with the columns that may differ; the others have to be matched."""

    alike: dict[Slice, tuple[str, ...]]
    rest_a: list[Slice]
    rest_b: list[Slice]


def overlap(a: CorpusRows, b: CorpusRows, columns: Sequence[str]) -> Overlap:
    """Of one table of two snapshots of a corpus; of ``columns`` (full names, in both) those that may differ."""
    same = set(b.corpus.snapshot.units) & {unit for unit in a.corpus.snapshot.units if _is_alike(a, b, unit)}
    alike: dict[Slice, tuple[str, ...]] = {}
    compare = _Columns(a.corpus, b.corpus, columns) if a.table == "clips" else None
    for part in a.slices:
        units = [unit for unit in part.units if unit in same]
        for differing, group in groupby(units, lambda unit: compare.that_may_differ(unit) if compare else ()):
            alike[Slice(tuple(group))] = differing
    return Overlap(alike, _without(a.slices, same), _without(b.slices, same))


def _without(slices: Iterable[Slice], units: set[str]) -> list[Slice]:
    left = (tuple(unit for unit in part.units if unit not in units) for part in slices)
    return [Slice(kept) for kept in left if kept]


def _is_alike(a: CorpusRows, b: CorpusRows, unit: str) -> bool:
    """Whether the unit has the same rows in both."""
    outputs = [INGEST, clips_output(a.corpus.clip_set)] if a.table == "clips" else [INGEST]
    first, second = a.corpus, b.corpus
    if any(first.snapshot.current.get(output) != second.snapshot.current.get(output) for output in outputs):
        return False
    if any(first.has(output, unit) != second.has(output, unit) for output in outputs):
        return False
    hidden = _hidden(first.snapshot, unit)
    return hidden == _hidden(second.snapshot, unit) and not hidden[-1]  # which spans were cut out is not among them


def _hidden(snapshot: Snapshot, unit: str) -> list[list[str]]:
    kinds = (snapshot.shadowed, snapshot.superseded, snapshot.taken_recordings, snapshot.taken_inputs, snapshot.cut_recordings)
    return [sorted(kind.get(unit, ())) for kind in kinds]


class _Columns:
    """Which columns of clips may differ in a unit whose clips do not."""

    def __init__(self, a: Corpus, b: Corpus, columns: Sequence[str]) -> None:
        self._a, self._b = a, b
        self._owned: dict[str, list[str]] = {}
        for full in columns:
            self._owned.setdefault(full.partition(".")[0], []).append(full)
        first, second = a.snapshot, b.snapshot
        # A recording may be known by inputs of other units too, and of those the first counts.
        self._inputs_differ = any(
            getattr(first, kind) != getattr(second, kind) for kind in ("shadowed", "superseded", "taken_inputs")
        )
        self._tables = {name for name in first.tables if first.tables[name] != second.tables.get(name)}
        self._layers = [name for name in a.layers() if name in b.layers()]

    def that_may_differ(self, unit: str) -> tuple[str, ...]:
        layers = [name for name in self._layers if self._differs(name, unit)]
        owners = [*(["input"] if self._inputs_differ else []), *layers, *sorted(self._tables)]
        derived = {
            "clip.language": layers or self._inputs_differ,
            "clip.speaker": self._inputs_differ or SPEAKERS_TABLE in self._tables,
        }
        of_clip = [
            full for full in self._owned.get("clip", ()) if derived.get(full) and full.partition(".")[2] not in CLIPS.names
        ]
        return tuple(of_clip + [full for owner in owners for full in self._owned.get(owner, ())])

    def _differs(self, layer: str, unit: str) -> bool:
        output = layer_output(self._a.clip_set, layer)
        is_same = self._a.fingerprint(output) == self._b.fingerprint(output)
        return not is_same or self._a.has(output, unit) != self._b.has(output, unit)
