"""Two fingerprints of one layer over the units that have both: what a new model or revision changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from manifests.audit.drift import Compared, Sample, compared
from manifests.audit.recipe import Distribution
from manifests.audit.slices import bins_of, bounds_of
from manifests.clip_rows import shown_rows
from manifests.corpus import Corpus
from manifests.parts import PartFacts
from manifests.rows import Slice
from manifests.snapshots import clips_output, layer_output

UNITS_A_SLICE = 32
NOW, THEN = "now.", "then."


@dataclass(frozen=True)
class Revision:
    """An earlier fingerprint of a layer, and the units that both have."""

    layer: str
    now: str
    then: str
    units: tuple[str, ...]


def revisions(corpus: Corpus) -> list[Revision]:
    """Every earlier fingerprint of each layer that shares units with the current one, and has rows of the same clips."""
    found = []
    for layer, now in corpus.layers().items():
        output = layer_output(corpus.clip_set, layer)
        made = corpus.snapshot.outputs.get(output, {})
        for then in sorted(made.keys() - {now}):
            both = set(made.get(now, ())) & set(made[then])
            units = tuple(unit for unit in corpus.snapshot.units if unit in both)
            if units and _is_of_these_clips(PartFacts.read(corpus.store, output, then), corpus):
                found.append(Revision(layer, now, then, units))
    return found


def _is_of_these_clips(part: PartFacts | None, corpus: Corpus) -> bool:
    """Whether a layer was made of the clips that count now, as far as anybody says: others under the same name are other spans."""
    clips = clips_output(corpus.clip_set)
    return part is None or part.reads.get(clips, corpus.fingerprint(clips)) == corpus.fingerprint(clips)


class RevisionRows:
    """Columns of a layer by both fingerprints, row for row: ``now.<column>``, ``then.<column>``; and ``recording_id``."""

    def __init__(self, corpus: Corpus, revision: Revision) -> None:
        self.corpus, self.revision = corpus, revision
        self.table = f"layer {revision.layer} of {revision.now} and {revision.then}"
        units = revision.units
        self.slices = [Slice(units[at : at + UNITS_A_SLICE]) for at in range(0, len(units), UNITS_A_SLICE)]
        schemas = [self._layer(mark, units[:1], None).schema for mark in (revision.now, revision.then)]
        named = [[f.with_name(prefix + f.name) for f in schema] for prefix, schema in zip((NOW, THEN), schemas, strict=True)]
        self.schema = pa.schema([*named[0], *named[1], pa.field("recording_id", pa.binary(16))])

    def __reduce__(self) -> tuple[Callable[..., RevisionRows], tuple[str, int, Revision]]:
        return _opened, (self.uri, self.corpus.snapshot.number, self.revision)

    @property
    def uri(self) -> str:
        return self.corpus.store.uri

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        found: dict[str, Any] = {}
        for prefix, mark in ((NOW, self.revision.now), (THEN, self.revision.then)):
            names = [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]
            table = self._layer(mark, part.units, names)
            found |= {prefix + name: table[name] for name in names}
        clips = clips_output(self.corpus.clip_set)
        place = (clips, self.corpus.fingerprint(clips), part.units)
        rows, counts = self.corpus.tables.read_many(*place, "clips", ["recording_id"])
        found["recording_id"] = rows["recording_id"]
        made, shown = pa.table({name: found[name] for name in columns}), shown_rows(self.corpus, part.units, lambda: counts)
        return made if shown is None else made.filter(shown)

    def _layer(self, mark: str, units: Sequence[str], columns: list[str] | None) -> pa.Table:
        output = layer_output(self.corpus.clip_set, self.revision.layer)
        return self.corpus.tables.read_many(output, mark, units, "layer", columns)[0]


def _opened(uri: str, snapshot: int, revision: Revision) -> RevisionRows:
    return RevisionRows(Corpus.open(uri, snapshot), revision)


@dataclass
class Both:
    """Tally: histograms of each column by both fingerprints, of rows that have a value by both."""

    distributions: list[Distribution]
    num_recordings: int = 0
    now: list[np.ndarray] = field(default_factory=list)
    then: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = [np.zeros(d.num_bins + 3, np.int64) for d in self.distributions]
        self.then = [np.zeros(d.num_bins + 3, np.int64) for d in self.distributions]

    @property
    def columns(self) -> Sequence[str]:
        names = [d.column.partition(".")[2] for d in self.distributions]
        return [*(NOW + name for name in names), *(THEN + name for name in names), "recording_id"]

    def add(self, table: pa.Table) -> None:
        self.num_recordings += len(table["recording_id"].unique())
        for number, d in enumerate(self.distributions):
            name = d.column.partition(".")[2]
            values = [table[prefix + name].to_numpy().astype(np.float64) for prefix in (NOW, THEN)]
            is_known = ~(np.isnan(values[0]) | np.isnan(values[1]))
            for counts, side in ((self.now, values[0]), (self.then, values[1])):
                counts[number] += np.bincount(bins_of(side[is_known], bounds_of(d)), minlength=d.num_bins + 3)

    def merge(self, other: Self) -> None:
        self.num_recordings += other.num_recordings
        for number in range(len(self.distributions)):
            self.now[number] += other.now[number]
            self.then[number] += other.then[number]

    def tests(self, revision: Revision, fewest: int) -> list[Compared]:
        """The earlier fingerprint against the current one, a test a column."""
        names = f"{revision.layer} {revision.now}", f"{revision.layer} {revision.then}"
        found = list[Compared]()
        for d, now, then in zip(self.distributions, self.now, self.then, strict=True):
            sides = Sample(now, self.num_recordings), Sample(then, self.num_recordings)
            found += compared("model", d, names[0], sides[0], names[1], sides[1], fewest)
        return found
