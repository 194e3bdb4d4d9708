"""A sample for human ears: drawn by strata, with the audio to play in the page.

A clip is drawn when its hash is among the smallest of its stratum: the same clips for the same corpus and seed, whatever
ran the pass. Every stratum gets ``LEAST`` clips, the others go by hours.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import AudioReader, encode_flac, resample
from manifests.errors import RequestError
from manifests.ids import ID_BYTES

LEAST = 2  # clips of a stratum, where it has as many
MOST_STRATA = 256
PLAYED_HZ = 16_000
PLAYED_S = 30.0  # of a longer clip the beginning
PLACE = ("clip.recording_id", "clip.channel", "clip.sample_rate_hz", "clip.start_sample", "clip.end_sample")
Stratum = tuple[str | None, ...]


@dataclass(frozen=True)
class Drawn:
    """A clip of the sample: its columns by full name."""

    stratum: Stratum
    row: Mapping[str, Any]

    @property
    def clip_id(self) -> str:
        return bytes(self.row["clip.clip_id"]).hex()


class ListeningSample:
    """Tally: a stratified sample of ``size`` clips, with the columns ``shows``.

    Raises RequestError where the strata's columns have more than MOST_STRATA combinations.
    """

    def __init__(self, strata: Sequence[str], size: int, seed: int = 0, shows: Sequence[str] = ()) -> None:
        self.strata, self.size, self.seed = tuple(strata), size, seed
        self.columns = tuple(dict.fromkeys(("clip.clip_id", "clip.duration_s", *PLACE, *strata, *shows)))
        self._num: dict[Stratum, int] = {}
        self._hours: dict[Stratum, float] = {}
        self._kept: dict[Stratum, list[tuple[int, dict[str, Any]]]] = {}  # by hash, at most ``size``

    @property
    def num_clips(self) -> dict[Stratum, int]:
        """Clips of each stratum, drawn or not."""
        return dict(self._num)

    @property
    def hours(self) -> dict[Stratum, float]:
        return dict(self._hours)

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        of, names = _strata(table, self.strata)
        for stratum, num, seconds in zip(
            names, np.bincount(of), np.bincount(of, table["clip.duration_s"].to_numpy()), strict=True
        ):
            self._num[stratum] = self._num.get(stratum, 0) + int(num)
            self._hours[stratum] = self._hours.get(stratum, 0.0) + float(seconds) / 3600
        self._check()
        hashes = _hashes(table["clip.clip_id"], self.seed)
        limits = np.array([self._limit(stratum) for stratum in names], np.uint64)
        near = np.flatnonzero(hashes < limits[of])
        near = near[np.lexsort((hashes[near], of[near]))]
        within = np.arange(len(near)) - np.searchsorted(of[near], of[near])
        near = near[within < self.size]
        for place, row in zip(near.tolist(), table.select(list(self.columns)).take(pa.array(near)).to_pylist(), strict=True):
            self._kept.setdefault(names[of[place]], []).append((int(hashes[place]), row))
        self._trim()

    def merge(self, other: ListeningSample) -> None:
        for stratum, num in other._num.items():
            self._num[stratum] = self._num.get(stratum, 0) + num
            self._hours[stratum] = self._hours.get(stratum, 0.0) + other._hours[stratum]
            self._kept.setdefault(stratum, []).extend(other._kept.get(stratum, ()))
        self._check()
        self._trim()

    def drawn(self) -> list[Drawn]:
        """The sample, stratum by stratum, those with most hours first."""
        order = sorted(self._num, key=lambda stratum: (-self._hours[stratum], str(stratum)))
        shares = allotted([self._hours[stratum] for stratum in order], [self._num[stratum] for stratum in order], self.size)
        return [
            Drawn(stratum, row)
            for stratum, num in zip(order, shares, strict=True)
            for _, row in self._kept.get(stratum, [])[:num]
        ]

    def _limit(self, stratum: Stratum) -> int:
        kept = self._kept.get(stratum, [])
        return kept[-1][0] if len(kept) >= self.size else int(np.iinfo(np.uint64).max)

    def _trim(self) -> None:
        for stratum, rows in self._kept.items():
            self._kept[stratum] = heapq.nsmallest(self.size, rows, key=lambda item: item[0])

    def _check(self) -> None:
        if len(self._num) > MOST_STRATA:
            raise RequestError(
                f"sample: columns {', '.join(self.strata)} have more than {MOST_STRATA} combinations; name columns with fewer values"
            )


def allotted(weights: Sequence[float], available: Sequence[int], size: int) -> list[int]:
    """How many of ``size`` each stratum gets: LEAST of each, in order, the rest by weight; never more than there are."""
    given = [0] * len(weights)
    for _ in range(LEAST):
        for at, num in enumerate(available):
            if given[at] < num and sum(given) < size:
                given[at] += 1
    while sum(given) < size:
        # The stratum that has least of what its weight deserves comes next (D'Hondt).
        open_ = [at for at, num in enumerate(available) if given[at] < num and weights[at] > 0]
        if not open_:
            break
        given[max(open_, key=lambda at: weights[at] / (given[at] + 1))] += 1
    return given


def played(reader: AudioReader, drawn: Drawn) -> str:
    """The clip as a ``data:`` address of FLAC at PLAYED_HZ, at most PLAYED_S of it."""
    row = drawn.row
    rate, start = int(row["clip.sample_rate_hz"]), int(row["clip.start_sample"])
    end = min(int(row["clip.end_sample"]), start + round(PLAYED_S * rate))
    audio = resample(reader.read(row["clip.recording_id"], int(row["clip.channel"]), rate, start, end), rate, PLAYED_HZ)
    return "data:audio/flac;base64," + base64.b64encode(encode_flac(audio, PLAYED_HZ)).decode("ascii")


def _strata(table: pa.Table, columns: Sequence[str]) -> tuple[np.ndarray, list[Stratum]]:
    """(int64 ``[num_rows]``: index of each row's stratum, the strata)."""
    codes, values = np.zeros(table.num_rows, np.int64), list[list[Any]]()
    for name in columns:
        encoded = pc.dictionary_encode(table[name].combine_chunks(), null_encoding="encode")
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        values.append(encoded.dictionary.to_pylist())
        codes = codes * max(1, len(values[-1])) + np.asarray(encoded.indices)
    found, of = np.unique(codes, return_inverse=True)
    names = []
    for code in found.tolist():
        parts: list[str | None] = []
        for choices in reversed(values):
            code, at = divmod(code, max(1, len(choices)))
            parts.append(None if choices[at] is None else str(choices[at]))
        names.append(tuple(reversed(parts)))
    return of, names


def _hashes(ids: pa.ChunkedArray, seed: int) -> np.ndarray:
    """Uint64 ``[num_rows]``: hash of each 16-byte id and the seed (the finaliser of SplitMix64)."""
    whole = ids.combine_chunks()
    start = whole.offset * ID_BYTES
    data = np.frombuffer(whole.buffers()[1], np.uint8)[start : start + len(whole) * ID_BYTES]
    mixed = data.reshape(-1, ID_BYTES)[:, :8].copy().view("<u8")[:, 0] + np.uint64((seed * 0x9E3779B97F4A7C15) % (1 << 64))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
