"""Rows of a corpus or a pack, slice by slice: what whoever counts them may rest on.

``clip.duration_s`` is of the clip itself, ``recording.bandwidth_hz`` of its recording, ``input.licence`` what the inputs of
that recording say, ``asr.text`` of a layer, ``speaker_id.similarity`` of a decision table. A column is read when it is
asked for, and only then.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from manifests.errors import RequestError

PREFERRED = ("clip", "input", "recording")  # whose column a bare name means, where several have it


class Slice(NamedTuple):
    """Some rows: those of ``units`` in plan order, or row groups ``[start, stop)`` of a pack's split."""

    units: tuple[str, ...]
    start: int = 0
    stop: int = 0


class Rows(Protocol):
    """A table that may be larger than memory. Picklable; threads may share one."""

    @property
    def uri(self) -> str:
        """Of the corpus or pack."""

    @property
    def table(self) -> str:
        """Name of the table: ``clips``, ``documents``, …"""

    @property
    def schema(self) -> pa.Schema:
        """Every column by its full name, with its description."""

    @property
    def slices(self) -> Sequence[Slice]:
        """What is read at a time, in order."""

    def read(self, part: Slice, columns: Sequence[str]) -> pa.Table:
        """Exactly ``columns`` (full names) of a slice's rows."""


def resolve(rows: Rows, name: str) -> str:
    """The full name of a column. Raises RequestError where there is none, or a bare name could mean several."""
    names = rows.schema.names
    if name in names:
        return name
    found = [full for full in names if full.rpartition(".")[2] == name]
    preferred = next((full for owner in PREFERRED for full in found if full == f"{owner}.{name}"), None)
    if preferred or len(found) == 1:
        return preferred or found[0]
    if found:
        raise RequestError(f"column {name!r} could be {', '.join(found)}; write which")
    bare = {full.rpartition(".")[2]: full for full in names}
    near = difflib.get_close_matches(name, [*names, *bare], 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names)}"
    raise RequestError(f"column {name!r} is not in the {rows.table} of {rows.uri!r}; {hint}")


def rows_only(tables: Iterable[pa.Table]) -> pa.Table:
    """A table of no columns that still counts its rows."""
    total = sum(table.num_rows for table in tables)
    return pa.table({"": pa.nulls(total)}).select([])
