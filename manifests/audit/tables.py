"""The figures of an audit as tables: what ``--figures`` writes as Parquet beside the JSON."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from manifests.audit.figures import AuditFigures


def figure_tables(made: AuditFigures) -> dict[str, pa.Table]:
    """name -> table, one a kind of figures; a kind with no rows has none. Values of shown columns are JSON text."""
    found = {
        "groups": [
            {
                "group": group["name"],
                "key": [None if value is None else str(value) for value in row["key"]],
                **_without(row, "key"),
            }
            for group in made.groups
            for row in group["rows"]
        ],
        "speakers_over_cap": made.speakers["over_cap"] if made.speakers else [],
        "distributions": [{**_without(row, "quantiles"), **row["quantiles"]} for row in made.distributions],
        "distinct": made.distinct,
        "statuses": [
            {"layer": layer["layer"], "status": status, **sums}
            for layer in made.layers
            for status, sums in layer["statuses"].items()
        ],
        "columns": [{"layer": layer["layer"], **row} for layer in made.layers for row in layer["columns"]],
        "rules": [_without(row, "first") for row in made.rules],
        "offenders": [{"rule": rule["rule"], **_row(row)} for rule in made.rules for row in rule["first"]],
        "outliers": [
            {"column": ends["column"], "end": ends["end"], **_row(row)} for ends in made.outliers for row in ends["rows"]
        ],
        "drift": made.drift["rows"],
    }
    if made.funnel:
        found |= {
            "funnel_steps": made.funnel["steps"],
            "funnel_sets": made.funnel["sets"],
            "funnel_what_ifs": made.funnel["what_ifs"],
        }
    return {name: pa.Table.from_pylist(rows) for name, rows in found.items() if rows}


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "values": json.dumps(row["values"], default=str)}
