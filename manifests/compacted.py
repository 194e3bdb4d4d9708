"""Compactions: where the rows of an output's units are after their parts were merged into large ones.

A compacted part is one Parquet object whose row groups are the tables of consecutive units, one a unit, in order. A
compaction is the list of an output's parts; it never changes, and the snapshot names it.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from manifests.errors import parsing
from manifests.ids import new_attempt_id
from manifests.store import Store, json_bytes


class RowGroup(NamedTuple):
    """Where the table of one unit is."""

    path: str
    number: int
    num_rows: int


@dataclass(frozen=True)
class CompactedPart:
    """One object. Row group ``row_groups[i]`` holds the ``num_rows[i]`` rows of ``units[i]``; units are in order.

    ``group`` is the first unit of the group that the part belongs to: the parts of clips and layers that share it cover
    the same stretch of units.
    """

    role: str
    group: str
    path: str
    num_bytes: int
    digest: str  # hex, manifests.ids.digest_bytes
    units: list[str]
    row_groups: list[int]
    num_rows: list[int]

    def find(self, unit: str) -> RowGroup | None:
        """Where the unit's rows are; None when they are not in this part."""
        at = bisect_left(self.units, unit)
        if at == len(self.units) or self.units[at] != unit:
            return None
        return RowGroup(self.path, self.row_groups[at], self.num_rows[at])

    def without(self, units: Iterable[str]) -> CompactedPart:
        """The same object, counting no more for some units."""
        gone = set(units)
        kept = [i for i, unit in enumerate(self.units) if unit not in gone]
        rows = {name: [getattr(self, name)[i] for i in kept] for name in ("units", "row_groups", "num_rows")}
        return CompactedPart(**{**self.__dict__, **rows})


class Compaction:
    """The parts of one output, in order of their groups."""

    def __init__(self, output: str, fingerprint: str, parts: Iterable[CompactedPart]) -> None:
        self.output, self.fingerprint = output, fingerprint
        self.parts = sorted(parts, key=lambda part: (part.role, part.group))
        self._keys = [(part.role, part.group) for part in self.parts]

    def find(self, role: str, unit: str) -> RowGroup | None:
        """Where a unit's table is; None when it was not compacted."""
        part = self.part_of(role, unit)
        return None if part is None else part.find(unit)

    def part_of(self, role: str, unit: str) -> CompactedPart | None:
        """The part in whose group the unit falls, whether it holds the unit or not."""
        at = bisect_right(self._keys, (role, unit)) - 1
        return self.parts[at] if at >= 0 and self.parts[at].role == role else None

    def to_json(self) -> dict[str, Any]:
        return {"output": self.output, "fingerprint": self.fingerprint, "parts": [asdict(part) for part in self.parts]}

    @staticmethod
    def from_json(row: dict[str, Any]) -> Compaction:
        for part in row["parts"]:
            part["units"] = [sys.intern(unit) for unit in part["units"]]  # the same 200,000 names in every output
        return Compaction(row["output"], row["fingerprint"], [CompactedPart(**part) for part in row["parts"]])


def compaction_folder(output: str, fingerprint: str) -> str:
    return f"compacted/{output}/{fingerprint}"


def write_compaction(store: Store, compaction: Compaction) -> str:
    """Write it under a name of its own; returns the path that a snapshot may name."""
    path = f"{compaction_folder(compaction.output, compaction.fingerprint)}/{new_attempt_id()}.json"
    store.write(path, json_bytes(compaction.to_json()))
    return path


def read_compaction(store: Store, path: str) -> Compaction:
    """Raises FileNotFoundError where there is none, WorkError where it is damaged.

    Read once a process: it never changes, and has 5 MB for 200,000 units.
    """
    return _read_compaction(store.uri, path)


@lru_cache(maxsize=32)
def _read_compaction(uri: str, path: str) -> Compaction:
    data = Store(uri).read(path)
    with parsing(uri, path):
        return parse_compaction(data)


def parse_compaction(data: bytes) -> Compaction:
    """A stored compaction. Raises ValueError, KeyError or TypeError for anything else."""
    return Compaction.from_json(json.loads(data))
