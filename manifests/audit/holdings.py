"""What was ingested: inputs, recordings and refusals by their facts, and licences that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.licences import compared_licences

RECORDING_H = "recording_h"


@dataclass
class Sums:
    """Tally: rows by the values of ``keys``, and what ``amount`` adds up to: a column, ``recording_h``, or nothing."""

    keys: tuple[str, ...]
    amount: str | None = None
    sums: dict[tuple[Any, ...], list[float]] = field(default_factory=dict)

    @property
    def columns(self) -> Sequence[str]:
        if self.amount == RECORDING_H:
            return [*self.keys, "num_samples", *({"sample_rate_hz"} - {*self.keys})]
        return [*self.keys, *([self.amount] if self.amount else [])]

    def add(self, table: pa.Table) -> None:
        if self.amount == RECORDING_H:
            amounts = table["num_samples"].to_numpy() / np.maximum(1, table["sample_rate_hz"].to_numpy()) / 3600
        else:
            amounts = table[self.amount].to_numpy() if self.amount else np.zeros(table.num_rows)
        whole = table.select(list(self.keys)).append_column("amount", pa.array(amounts, pa.float64()))
        grouped = whole.group_by(list(self.keys), use_threads=False).aggregate([("amount", "sum"), ([], "count_all")])
        for row in grouped.to_pylist():
            self._count(tuple(row[key] for key in self.keys), row["count_all"], row["amount_sum"])

    def merge(self, other: Self) -> None:
        for key, (num, amount) in other.sums.items():
            self._count(key, num, amount)

    def rows(self) -> list[dict[str, Any]]:
        """The keys, ``num`` and the amount; most rows first."""
        ordered = sorted(self.sums.items(), key=lambda item: (-item[1][0], [str(value) for value in item[0]]))
        return [
            {**dict(zip(self.keys, key, strict=True)), "num": int(num), **({self.amount: amount} if self.amount else {})}
            for key, (num, amount) in ordered
        ]

    def _count(self, key: tuple[Any, ...], num: float, amount: float) -> None:
        before = self.sums.setdefault(key, [0, 0.0])
        before[0] += num
        before[1] += amount


@dataclass
class Disagreements:
    """Tally: recordings whose inputs tell different licences, however they spell them. ``shared`` are those that inputs of several units have."""

    shared: frozenset[bytes]
    most: int
    num: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    told: dict[bytes, set[str]] = field(default_factory=dict)  # of the shared ones

    columns: Sequence[str] = ("recording_id", "licence")

    def add(self, table: pa.Table) -> None:
        told = pa.table([table["recording_id"], compared_licences(table["licence"])], [*self.columns])
        known = told.filter(pc.and_(*(pc.is_valid(told[name]) for name in self.columns)))
        pairs = known.group_by(["recording_id", "licence"], use_threads=False).aggregate([])
        if self.shared:
            of_several = pc.is_in(pairs["recording_id"], value_set=pa.array(sorted(self.shared), pa.binary(16)))
            for row in pairs.filter(of_several).to_pylist():
                self.told.setdefault(row["recording_id"], set()).add(row["licence"])
            pairs = pairs.filter(pc.invert(of_several))
        counted = pairs.group_by("recording_id", use_threads=False).aggregate([("licence", "list")])
        self._count(counted.filter(pc.greater(pc.list_value_length(counted["licence_list"]), 1)).to_pylist())

    def merge(self, other: Self) -> None:
        self.num += other.num
        self.first = (self.first + other.first)[: self.most]
        for recording, licences in other.told.items():
            self.told.setdefault(recording, set()).update(licences)

    def figures(self) -> dict[str, Any]:
        """``num_recordings`` and the ``first`` of them with their licences."""
        several = [(recording, licences) for recording, licences in sorted(self.told.items()) if len(licences) > 1]
        rows = [*self.first, *({"recording_id": r.hex(), "licences": sorted(told)} for r, told in several)]
        return {"num_recordings": self.num + len(several), "first": rows[: self.most]}

    def _count(self, rows: list[dict[str, Any]]) -> None:
        self.num += len(rows)
        more = [{"recording_id": row["recording_id"].hex(), "licences": sorted(row["licence_list"])} for row in rows]
        self.first = (self.first + more)[: self.most]
