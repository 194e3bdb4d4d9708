"""What an export holds: rows and seconds by split and licence, summed over its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.export.row import ExportRow


@dataclass
class Contents:
    """Counts of one part, or of all. A licence of None is one that nobody states."""

    num_rows: dict[tuple[str, str | None], int] = field(default_factory=dict)
    audio_s: dict[tuple[str, str | None], float] = field(default_factory=dict)
    num_silent: int = 0  # rows left out since the format needs audio, and they have none
    num_withheld: int = 0  # rows left out since those who speak withheld their consent

    def counted(self, split: str, rows: Iterable[ExportRow], *, needs_audio: bool) -> Iterator[ExportRow]:
        """The rows that the format takes, each counted as it passes."""
        for row in rows:
            if row.facts["consent"] == "withheld":
                self.num_withheld += 1
                continue
            if needs_audio and row.flac is None:
                self.num_silent += 1
                continue
            key = (split, row.facts["licence"])
            self.num_rows[key] = self.num_rows.get(key, 0) + 1
            self.audio_s[key] = self.audio_s.get(key, 0.0) + (row.facts["duration_s"] or 0.0)
            yield row

    def __add__(self, other: Contents) -> Contents:
        rows, audio = dict(self.num_rows), dict(self.audio_s)
        for key, num in other.num_rows.items():
            rows[key] = rows.get(key, 0) + num
            audio[key] = audio.get(key, 0.0) + other.audio_s[key]
        return Contents(rows, audio, self.num_silent + other.num_silent, self.num_withheld + other.num_withheld)

    @property
    def splits(self) -> list[str]:
        """Those that hold a row, in order."""
        return list(dict.fromkeys(split for split, _ in self.num_rows))

    @property
    def licences(self) -> list[str | None]:
        """Every licence that a row states, sorted; None last, where some row states none."""
        return sorted({licence for _, licence in self.num_rows}, key=lambda licence: (licence is None, licence or ""))

    def by_split(self) -> dict[str, dict[str, Any]]:
        return {split: self._sums(0, split) for split in self.splits}

    def by_licence(self) -> dict[str | None, dict[str, Any]]:
        return {licence: self._sums(1, licence) for licence in self.licences}

    def _sums(self, place: int, value: str | None) -> dict[str, Any]:
        keys = [key for key in self.num_rows if key[place] == value]
        return {"num": sum(self.num_rows[key] for key in keys), "hours": sum(self.audio_s[key] for key in keys) / 3600}

    def to_json(self) -> dict[str, Any]:
        rows = [[split, licence, num, self.audio_s[split, licence]] for (split, licence), num in self.num_rows.items()]
        return {"rows": rows, "num_silent": self.num_silent, "num_withheld": self.num_withheld}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Contents:
        num_rows = {(split, licence): num for split, licence, num, _ in value["rows"]}
        audio_s = {(split, licence): seconds for split, licence, _, seconds in value["rows"]}
        return Contents(num_rows, audio_s, value["num_silent"], value["num_withheld"])
