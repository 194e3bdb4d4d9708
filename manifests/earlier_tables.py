"""Tables of units that were written before a column came to their schema: what readers get in its place."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from manifests.errors import RequestError
from manifests.schema import CLIPS, INPUTS, QUARANTINE, RECORDINGS

PAIRS = ("translation", "translation_language", "pair_id")
# Role -> the schema now, and the columns that a table of an earlier version lacks.
LATER = {
    "inputs": (INPUTS, ("synthesizer", "consent", "terms", "attribution", "origin_uri", *PAIRS)),
    "recordings": (RECORDINGS, ("bandwidth_hz", "is_interleaved")),
    "quarantine": (QUARANTINE, ("takedown_id",)),
    "clips": (CLIPS, ("speech_spans", "overlap_spans")),
}


def completed(role: str, table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """The table with a null for each fact that nobody asked after when it was written.

    A required column cannot be made up and stays out. Raises RequestError where it is among the ``columns`` asked for.
    """
    if role not in LATER:
        return table
    schema, later = LATER[role]
    missing = [name for name in later if name not in table.column_names and (columns is None or name in columns)]
    if not missing:
        return table
    for name in missing:
        if schema.field(name).nullable:
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
        elif columns is not None:
            raise RequestError(
                f"the {role} of this corpus were made before they had {name!r}; run `stepwell corpus build` on it again with its sources"
            )
    names = schema.names if columns is None else columns
    return table.select([name for name in names if name in table.column_names])


def schema_then(role: str, schema: pa.Schema, table: pa.Table) -> pa.Schema:
    """The schema without the required columns that the table was written before."""
    later = LATER[role][1] if role in LATER else ()
    return pa.schema([f for f in schema if f.nullable or f.name not in later or f.name in table.column_names])
