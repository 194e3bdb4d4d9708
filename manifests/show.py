"""What ``manifest show`` says: the facts of a corpus or a pack, and rows of a table, for machines and for people."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from manifests.conditions import parse_condition
from manifests.console import aligned, counted, hours
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.figures import pack_figures
from manifests.open_rows import corpus_rows, open_place, open_rows, table_names
from manifests.packs import Pack
from manifests.parts import model_lines
from manifests.query import Answer
from manifests.rows import Rows, resolve
from manifests.selection import COUNTED, Selected, Sorting, select, select_groups

CELL_CHARS = 60
LINE_COLUMNS = 8  # as many fit on a line; more are shown a column a line
Facts = tuple[dict[str, Any], list[str]]  # as JSON, and the same as lines


def place_facts(uri: str, snapshot: int | None = None) -> Facts:
    """Of a corpus or a pack. Raises RequestError as ``open_place`` does."""
    place = open_place(uri, snapshot)
    return pack_facts(place) if isinstance(place, Pack) else corpus_facts(place)


def corpus_facts(corpus: Corpus) -> Facts:
    """Counts, hours, and what made every output; in the memory of a few slices."""
    outcomes = select_groups(corpus_rows(corpus, "inputs"), None, ["outcome"]).table
    num_inputs = dict(zip(outcomes["outcome"].to_pylist(), outcomes["rows"].to_pylist(), strict=True))
    recordings, clips = (select(corpus_rows(corpus, table), None, [], limit=0) for table in ("recordings", "clips"))
    value = {
        "corpus_id": corpus.corpus_id,
        "snapshot": corpus.snapshot.number,
        "num_units": len(corpus.snapshot.units),
        "clip_set": corpus.clip_set,
        "num_inputs": sum(num_inputs.values()),
        "num_refused": num_inputs.get("refused", 0),
        "num_partial": num_inputs.get("partial", 0),
        "num_recordings": recordings.num_rows,
        "recording_hours": recordings.hours,
        "num_clips": clips.num_rows,
        "clip_hours": clips.hours,
        "outputs": dict(sorted(corpus.snapshot.current.items())),
        "models": {
            output: [asdict(model) for model in part.models]
            for output in sorted(corpus.snapshot.current)
            if (part := corpus.part(output)) is not None and part.models
        },
        "tables": {
            name: {"fingerprint": head.fingerprint, "snapshot": head.snapshot, "roles": head.roles}
            for name in sorted(corpus.snapshot.tables)
            if (head := corpus.decision_table(name))
        },
        "units_done": {
            output: len(corpus.snapshot.outputs.get(output, {}).get(mark, []))
            for output, mark in sorted(corpus.snapshot.current.items())
        },
    }
    lines = [
        f"corpus {corpus.corpus_id}, snapshot {value['snapshot']}, {value['num_units']} units, clip set {corpus.clip_set!r}",
        f"  {value['num_inputs']} inputs: {value['num_refused']} refused, {value['num_partial']} kept in part",
        f"  {value['num_recordings']} recordings, {value['recording_hours']:.4g} h; "
        f"{value['num_clips']} clips, {value['clip_hours']:.4g} h",
    ]
    width = max(map(len, value["outputs"]), default=0)
    for output, mark in value["outputs"].items():
        lines.append(f"  {output:<{width}}  {mark}  {value['units_done'][output]}/{value['num_units']} units")
        lines += [f"  {'':<{width}}    {line}" for line in model_lines(value["models"].get(output, ()))]
    for name, head in value["tables"].items():
        lines.append(f"  table {name}  {head['fingerprint']}  over snapshot {head['snapshot']}: {', '.join(head['roles'])}")
    return value, lines


def pack_facts(pack: Pack) -> Facts:
    """Documents, hours and the funnel, as the pack tells them."""
    figures = pack_figures(pack)
    lineage = {key: pack.head.get(key) for key in ("tokenizer_id", "vocabulary_hash", "codec_fingerprint", "lineage")}
    value = {"pack_id": pack.pack_id, "sample_rate_hz": pack.sample_rate_hz, **figures, **lineage}
    lines = [f"pack {pack.pack_id}, {pack.sample_rate_hz} Hz: {figures['num_documents']} documents, {figures['hours']:.4g} h"]
    for row in figures["splits"]:
        codes, tokens = row["num_codes"] or 0, row["num_text_tokens"] or 0
        lines.append(f"  {row['split']}: {row['num_documents']} documents, {codes} codes, {tokens} text tokens")
        for what, told in (("kinds", row["kinds"]), ("serve", row["tasks"])):
            lines += [f"    {what}: {', '.join(f'{name} {num}' for name, num in told.items())}"] if told else []
    for row in figures["funnel"]:
        reason = f" ({row['reason']})" if row["reason"] else ""
        lines.append(f"  funnel: {row['step']}{reason} {row['num']}, {row['hours']:.4g} h")
    for key in ("tokenizer_id", "vocabulary_hash", "codec_fingerprint"):
        lines.append(f"  {key.replace('_', ' ')}: {lineage[key] or 'none'}")
    return value, lines


def row_facts(
    uri: str,
    table: str | None = None,
    snapshot: int | None = None,
    *,
    where: str | None = None,
    columns: str | None = None,
    group_by: str | None = None,
    sort: str | None = None,
    limit: int = 10,
    scheduler: str | None = None,
) -> Facts:
    """Rows of a table, or their groups; names of columns between commas, in ``sort`` with a minus where they fall.

    Raises RequestError at what cannot be read, or names no column.
    """
    if columns and group_by:
        raise RequestError(
            f"--columns {columns} and --group-by {group_by} exclude each other: groups show what they are grouped by"
        )
    rows, shown = _opened(uri, table, snapshot)
    condition = None if where is None else parse_condition(where, rows, "--where")
    if group_by:
        by = [resolve(rows, name) for name in names_in(group_by)]
        found = select_groups(rows, condition, by, _sorting(rows, sort, (*by, *COUNTED)), limit, scheduler)
    else:
        wanted = [resolve(rows, name) for name in names_in(columns)] if columns else shown
        found = select(rows, condition, wanted, _sorting(rows, sort), limit, scheduler)
    value = {
        "table": table or rows.table,
        "num_rows": found.num_rows,
        "hours": found.hours,
        "columns": found.table.column_names,
        "rows": readable(found.table.to_pylist()),
    }
    return value, _row_lines(table or rows.table, found)


def _opened(uri: str, table: str | None, snapshot: int | None) -> tuple[Rows, list[str]]:
    """A table by the name that ``--table`` takes, and the columns that are shown of it. Raises RequestError naming those there are."""
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        rows = open_rows(uri, table)
        return rows, rows.schema.names
    names = [*table_names(place), *(f"layer:{layer}" for layer in place.layers())]
    kind, _, name = (table or "clips").partition(":")
    if table is not None and table not in names and kind != "table":
        raise RequestError(f"table {table!r} is not one of {', '.join(names)}")
    rows = open_rows(uri, None if kind == "layer" else table, place.snapshot.number)
    if kind != "layer":
        return rows, rows.schema.names
    return rows, ["clip.clip_id", *(full for full in rows.schema.names if full.startswith(f"{name}."))]


def names_in(text: str) -> list[str]:
    """Names between commas, each once. Raises RequestError where one is empty."""
    found = [name.strip() for name in text.split(",")]
    if "" in found:
        raise RequestError(f"{text!r} has an empty name; write names between commas, as in source,language")
    return list(dict.fromkeys(found))


def _sorting(rows: Rows, text: str | None, grouped: Sequence[str] = ()) -> list[Sorting]:
    found = []
    for word in names_in(text) if text else ():
        name = word.removeprefix("-")
        full = name if name in grouped else resolve(rows, name)
        if grouped and full not in grouped:
            raise RequestError(f"--sort {name}: groups can be sorted by {', '.join(grouped)}")
        found.append(Sorting(full, is_falling=word != name))
    return found


def _row_lines(name: str, found: Selected) -> list[str]:
    """How many there are, then the rows: one a line, or where they have many columns a column a line, without nulls."""
    length = "" if found.hours is None else f", {hours(found.hours)}"
    head = f"{name}: {counted(found.num_rows, 'row')}{length}"
    table = found.table
    if table.num_columns <= LINE_COLUMNS:
        body = [[shortened(readable(value)) for value in row.values()] for row in table.to_pylist()]
        return [head, *aligned([table.column_names, *body])] if body else [head]
    lines = [f"{head}, {table.num_columns} columns"]
    width = max(map(len, table.column_names), default=0)
    for number, row in enumerate(table.to_pylist()):
        lines.append(f"row {number}")
        lines += [f"  {key:<{width}}  {shortened(readable(value))}" for key, value in row.items() if value is not None]
    return lines


def readable(value: Any) -> Any:
    """The value as JSON can hold it: bytes as hex, NaN and times as text, in lists and structs too."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, decimal.Decimal):  # what DuckDB makes of sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (datetime.date, datetime.time)) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value


def shortened(value: Any) -> str:
    """A value in a cell of the terminal; a dash where there is none."""
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= CELL_CHARS else f"{text[: CELL_CHARS - 1]}…"


def answer_facts(found: Answer) -> Facts:
    """The rows of a query, one a line."""
    rows = [readable(row) for row in found.table.to_pylist()]
    more = ["… and more; print them with --rows, or write them all with --out"] if found.has_more else []
    lines = [*aligned([found.table.column_names, *([shortened(value) for value in row.values()] for row in rows)]), *more]
    return {"columns": found.table.column_names, "rows": rows, "has_more": found.has_more}, lines
