"""``manifest diff``: two corpora, two packs, or two snapshots of a corpus, row by row, column by column, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manifests.console import aligned, counted, hours, number
from manifests.corpus import Corpus
from manifests.diff.alike import TABLES, Overlap, overlap
from manifests.diff.reasons import corpus_reasons, funnel_changes, pack_reasons
from manifests.diff.rows import Comparison, PartOfRows, compare
from manifests.errors import RequestError
from manifests.open_rows import corpus_rows, open_place
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.rows import Rows, resolve
from manifests.selection import Selected, length_of, select
from manifests.unit_rows import CorpusRows

KEYS = {"clips": "clip.clip_id", "recordings": "recording_id", "inputs": "input_id", "documents": "key"}
# Columns whose values are told: hours that moved from one to another.
MOVED = {
    "clips": ("clip.language", "input.source", "input.licence"),
    "inputs": ("source", "licence", "language", "outcome"),
    "documents": ("language", "split", "kind", "text_source"),
}
# Where a document lies in the pack says nothing of what it is.
PLACES = ("shard", "offset")
Side = Corpus | Pack


def open_side(uri: str, snapshot: int | None = None) -> Side:
    """A pack, or a corpus: ``URI@12`` is its snapshot 12. Raises RequestError where there is neither, or a pack has a snapshot."""
    place, _, mark = uri.rpartition("@")
    if snapshot is None and place and mark.isdigit():
        uri, snapshot = place, int(mark)
    return open_place(uri, snapshot)


def diff(a: Side, b: Side, table: str | None = None, columns: Sequence[str] = ()) -> dict[str, Any]:
    """What differs, as JSON. ``columns`` are those that are compared, all that both have by default.

    Raises RequestError where the two are of different kinds, or have no such table or column.
    """
    first, second = _rows(a, table), _rows(b, table)
    if first.table != second.table:
        raise RequestError(
            f"{first.uri!r} has {first.table}, {second.uri!r} has {second.table}; compare two corpora or two packs"
        )
    comparison = _comparison(first, second, columns)
    found = Overlap({}, list(first.slices), list(second.slices))
    if isinstance(first, CorpusRows) and isinstance(second, CorpusRows) and first.uri == second.uri:
        found = overlap(first, second, comparison.columns)
    differing = compare(first, second, found, comparison)
    alike = select(PartOfRows(first, list(found.alike)), None, [], limit=0)
    sides = [_side(a, PartOfRows(first, found.rest_a), alike), _side(b, PartOfRows(second, found.rest_b), alike)]
    names = [{*rows.schema.names} for rows in (first, second)]
    return {
        "table": first.table,
        "a": sides[0],
        "b": sides[1],
        **differing,
        "num_unchanged": sides[0]["num_rows"] - differing["removed"]["num_rows"] - differing["changed"]["num_rows"],
        "only_in_a": sorted(names[0] - names[1]),
        "only_in_b": sorted(names[1] - names[0]),
        **_reasons(a, b),
    }


def _side(side: Side, rest: Rows, alike: Selected) -> dict[str, Any]:
    """What one side is, and how much it holds: what both have alike and the rest."""
    own = select(rest, None, [], limit=0)
    total_h = None if own.hours is None or alike.hours is None else own.hours + alike.hours
    mark = {"snapshot": side.snapshot.number} if isinstance(side, Corpus) else {"pack_id": side.pack_id}
    return {"uri": side.store.uri, **mark, "num_rows": own.num_rows + alike.num_rows, "hours": total_h}


def _reasons(a: Side, b: Side) -> dict[str, Any]:
    if isinstance(a, Pack) and isinstance(b, Pack):
        return {"reasons": pack_reasons(a, b), "funnel": funnel_changes(a, b)}
    return {"reasons": corpus_reasons(a, b) if isinstance(a, Corpus) and isinstance(b, Corpus) else [], "funnel": []}


def _rows(side: Side, table: str | None) -> Rows:
    if isinstance(side, Pack):
        return PackRows(side, table)
    if table not in (None, *TABLES):
        raise RequestError(f"table {table!r} has no key to match rows by; compare {', '.join(TABLES)}")
    return corpus_rows(side, table or "clips")


def _comparison(a: Rows, b: Rows, columns: Sequence[str]) -> Comparison:
    key = KEYS[a.table]
    both = [f.name for f in a.schema if f.name in b.schema.names and b.schema.field(f.name).type == f.type]
    asked = [resolve(a, name) for name in columns] or [name for name in both if name != key and name not in PLACES]
    if missing := [name for name in asked if name not in both]:
        raise RequestError(f"column {missing[0]!r} is not in both with one type; both have {', '.join(both)}")
    moved = tuple(name for name in MOVED.get(a.table, ()) if name in asked)
    return Comparison(key, tuple(asked), moved, length_of(a))


def diff_lines(found: dict[str, Any]) -> list[str]:
    """The difference for people."""
    lines = []
    for side in ("a", "b"):
        told = found[side]
        mark = f"snapshot {told['snapshot']}" if "snapshot" in told else f"pack {told['pack_id'][:12]}"
        lines.append(f"{side.upper()}  {told['uri']} ({mark}): {counted(told['num_rows'], 'row')}{_hours(told['hours'])}")
    for kind in ("added", "removed", "changed"):
        told, examples = found[kind], found["examples"][kind]
        named = f": {', '.join(map(str, examples))}{', …' if told['num_rows'] > len(examples) else ''}" if examples else ""
        lines.append(f"{kind}: {counted(told['num_rows'], 'row')}{_hours(told['hours'])}{named}")
    lines.append(f"unchanged: {counted(found['num_unchanged'], 'row')}")
    if found["columns"]:
        body = [[row["column"], f"{row['num_rows']:,}", _cell(row["hours"])] for row in found["columns"]]
        lines += ["", *aligned([["changed column", "rows", "hours"], *body])]
    if found["moved"]:
        body = [[r["column"], r["kind"], *_ends(r), f"{r['num_rows']:,}", _cell(r["hours"])] for r in found["moved"]]
        lines += ["", *aligned([["moved", "kind", "from", "to", "rows", "hours"], *body])]
    if found["funnel"]:
        body = [
            [row["reason"] or row["step"], f"{row['num_a']:,}", _cell(row["hours_a"]), f"{row['num_b']:,}", _cell(row["hours_b"])]
            for row in found["funnel"]
        ]
        lines += ["", *aligned([["funnel", "rows A", "hours A", "rows B", "hours B"], *body])]
    for side in ("a", "b"):
        lines += [f"only in {side.upper()}: {', '.join(found[f'only_in_{side}'])}"] if found[f"only_in_{side}"] else []
    return [*lines, *(["", "why"] if found["reasons"] else []), *(f"  {reason}" for reason in found["reasons"])]


def _ends(row: dict[str, Any]) -> list[str]:
    """Values before and after: a row that is new comes from nowhere."""
    before = "" if row["kind"] == "added" else row["from"] or "null"
    return [before, "" if row["kind"] == "removed" else row["to"] or "null"]


def _hours(value: float | None) -> str:
    return "" if value is None else f", {hours(value)}"


def _cell(value: float | None) -> str:
    return "-" if value is None else number(value)
