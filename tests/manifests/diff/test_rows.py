"""What differs is what a comparison of all rows, one by one, finds: matched by key or side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.diff.alike import Overlap
from manifests.diff.rows import Comparison, compare
from manifests.selection import length_of
from tests.manifests.made_rows import MadeRows, made_clips

COLUMNS = ("clip.language", "input.source", "asr.text", "signal.snr_db", "signal.num_peaks", "words.words")
MOVED = ("clip.language", "input.source")


def clips(num_rows: int, seed: int) -> pa.Table:
    """Clips with a column of lists of structs."""
    table = made_clips(num_rows, seed)
    some = [
        None,
        [],
        [None],
        [{"word": None, "start_s": 0.0}],
        [{"word": "a", "start_s": None}],
        [{"word": "a", "start_s": 0.0}] * 2,
    ]
    words = [some[i % len(some)] for i in range(num_rows)]
    kind = pa.list_(pa.struct([("word", pa.string()), ("start_s", pa.float64())]))
    return table.append_column("words.words", pa.array(words, kind))


def mutated(table: pa.Table, random: np.random.Generator, share: float) -> pa.Table:
    """Some values of each compared column replaced, nulls by values and values by nulls among them."""
    for name in COLUMNS:
        column = table[name].combine_chunks()
        order = np.arange(table.num_rows)
        hit = random.random(table.num_rows) < share
        order[hit] = random.integers(0, table.num_rows, int(hit.sum()))
        table = table.set_column(table.column_names.index(name), name, column.take(pa.array(order)))
    return table


def by_hand(a: pa.Table, b: pa.Table) -> dict[str, Any]:
    """The same figures, row by row."""
    before, after = ({row["clip.clip_id"]: row for row in table.to_pylist()} for table in (a, b))
    changed = {key for key in before.keys() & after.keys() if any(before[key][name] != after[key][name] for name in COLUMNS)}
    columns = {name: {key for key in changed if before[key][name] != after[key][name]} for name in COLUMNS}
    moved: dict[tuple[str, str, Any, Any], int] = {}
    for name in MOVED:
        for kind, keys in (
            ("added", after.keys() - before.keys()),
            ("removed", before.keys() - after.keys()),
            ("changed", changed),
        ):
            for key in keys:
                ends = before.get(key, {}).get(name), after.get(key, {}).get(name)
                if ends[0] != ends[1]:
                    moved[(name, kind, *ends)] = moved.get((name, kind, *ends), 0) + 1

    def hours(keys: set[bytes]) -> Any:
        return pytest.approx(sum((after.get(key) or before[key])["clip.duration_s"] for key in keys) / 3600)

    kinds = {"added": after.keys() - before.keys(), "removed": before.keys() - after.keys(), "changed": changed}
    return {
        **{kind: {"num_rows": len(keys), "hours": hours(keys)} for kind, keys in kinds.items()},
        "columns": {name: {"num_rows": len(keys), "hours": hours(keys)} for name, keys in columns.items() if keys},
        "moved": moved,
        "examples": {kind: [key.hex() for key in sorted(keys)[:5]] for kind, keys in kinds.items()},
    }


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: found[name] for name in ("added", "removed", "changed", "examples")} == {
        name: expected[name] for name in ("added", "removed", "changed", "examples")
    }
    assert {row["column"]: {"num_rows": row["num_rows"], "hours": row["hours"]} for row in found["columns"]} == expected[
        "columns"
    ]
    assert {(row["column"], row["kind"], row["from"], row["to"]): row["num_rows"] for row in found["moved"]} == expected["moved"]


def comparison(rows: MadeRows) -> Comparison:
    return Comparison("clip.clip_id", COLUMNS, MOVED, length_of(rows))


@settings(max_examples=20)
@given(
    num_rows=st.integers(0, 60),
    gone=st.integers(0, 60),
    seed=st.integers(0, 9),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    size=st.integers(5, 30),
)
def test_rows_in_any_order_are_matched_by_key(num_rows, gone, seed, share, size):
    random = np.random.default_rng(seed)
    whole = clips(90, seed)
    a = whole.slice(0, num_rows)
    b = mutated(whole, random, share).slice(min(gone, num_rows))
    b = b.take(pa.array(random.permutation(b.num_rows)))
    first, second = MadeRows(a, size), MadeRows(b, 11)
    check(compare(first, second, Overlap({}, first.slices, second.slices), comparison(first)), by_hand(a, b))


@settings(max_examples=20)
@given(seed=st.integers(0, 9), share=st.sampled_from([0.0, 0.1, 0.9]), size=st.integers(15, 100), num_alike=st.integers(0, 9))
def test_so_it_is_where_some_rows_are_known_to_be_the_same(seed, share, size, num_alike):
    a = clips(80, seed)
    b = mutated(a, np.random.default_rng(seed), share)
    first, second = MadeRows(a, size), MadeRows(b, size)
    alike, rest = first.slices[:num_alike], first.slices[num_alike:]
    overlap = Overlap(dict.fromkeys(alike, COLUMNS), rest, rest)
    check(compare(first, second, overlap, comparison(first)), by_hand(a, b))


def test_columns_that_cannot_differ_are_not_read():
    a = clips(80, 0)
    first, second = MadeRows(a, 10), MadeRows(mutated(a, np.random.default_rng(0), 0.5), 10)
    alike = dict.fromkeys(first.slices, ()) | {first.slices[2]: ("signal.snr_db",)}
    found = compare(first, second, Overlap(alike, [], []), comparison(first))
    assert [row["column"] for row in found["columns"]] == ["signal.snr_db"]
    assert second.read_columns == {"signal.snr_db"}
    assert first.read_columns == {"clip.clip_id", "clip.duration_s", "signal.snr_db"}
