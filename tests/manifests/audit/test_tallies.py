"""Every tally against plain Python over small random tables, in one piece and in pieces that are merged."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.audit.distributions import QUANTILES, Spread
from manifests.audit.funnel import CodesNeed, Funnel, LeftOut, TextNeed
from manifests.audit.outliers import Ends
from manifests.audit.recipe import Band, Distribution, Threshold
from manifests.audit.slices import SliceColumns, bins_of, bounds_of, edges_of
from manifests.audit.tallies import Distinct, GroupSums, LayerStatus, banded

numbers = st.one_of(st.none(), st.just(math.nan), st.floats(-3, 8, width=32), st.sampled_from([0.0, 1.0, 2.5, 5.0]))
words = st.sampled_from([None, "a", "b", "c"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "clip.duration_s": st.floats(0, 30, width=32),
            "clip.speech_share": st.floats(0, 1, width=32),
            "clip.language": words,
            "input.source": words,
            "asr.confidence": numbers,
            "asr.status": st.sampled_from([None, "ok", "error", "abstained"]),
            "asr.text": st.sampled_from([None, "", " ", "hello", "so", "then"]),
            "input.text": st.sampled_from([None, "told"]),
            "clip.recording_id": st.sampled_from([b"r" * 16, b"s" * 16, b"t" * 16]),
        }
    ),
    max_size=30,
)
SCHEMA = pa.schema(
    [
        ("clip.duration_s", pa.float64()),
        ("clip.speech_share", pa.float64()),
        ("clip.language", pa.string()),
        ("input.source", pa.string()),
        ("asr.confidence", pa.float32()),
        ("asr.status", pa.string()),
        ("asr.error", pa.string()),
        ("asr.text", pa.string()),
        ("input.text", pa.string()),
        ("clip.recording_id", pa.binary(16)),
        ("clip.clip_id", pa.binary(16)),
        ("clip.unit", pa.string()),
    ]
)
CONFIDENCE = Distribution(column="asr.confidence", title="confidence", low=0, high=5, num_bins=10)
FILTERS = [
    Threshold(column="clip.duration_s", min=1.0, max=20.0),
    Threshold(column="asr.confidence", min=0.5, drop_null=True),
    Threshold(column="asr.confidence", max=2.5),
]
SCALES = [(0.0, 30.0, 12), (0.0, 5.0, 10), (0.0, 5.0, 10)]


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    whole = [
        {
            **row,
            "clip.clip_id": number.to_bytes(16, "big"),
            "clip.unit": "u0",
            "asr.error": "out_of_memory: 3 GB" if row["asr.status"] == "error" else None,
        }
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(whole, schema=SCHEMA)


def counted(make: Any, table: pa.Table, cuts: list[int]) -> Any:
    """The tally over the slices between the cuts, merged from the right, each part through a pickle as a cluster sends it."""
    edges = sorted({0, table.num_rows, *(cut % (table.num_rows + 1) for cut in cuts)})
    parts = []
    for start, stop in itertools.pairwise(edges):
        tally = make()
        tally.add(SliceColumns(table.slice(start, stop - start)))
        parts.append(pickle.loads(pickle.dumps(tally)))
    total = make() if not parts else parts.pop()
    while parts:
        first = parts.pop()
        first.merge(total)
        total = first
    return total


def is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


CUTS = st.lists(st.integers(0, 100), max_size=3)


@settings(max_examples=50, deadline=None)
@given(ROWS, CUTS)
def test_sums_by_group_are_those_of_a_loop(rows, cuts):
    sums = counted(lambda: GroupSums(["clip.language", "input.source"]), table_of(rows), cuts)
    expected: dict[Any, list[float]] = {}
    for row in rows:
        before = expected.setdefault((row["clip.language"], row["input.source"]), [0, 0.0, 0.0])
        before[0] += 1
        before[1] += row["clip.duration_s"]
        before[2] += row["clip.duration_s"] * row["clip.speech_share"]
    found = sums.rows().to_pylist()
    assert {(row["key_0"], row["key_1"]): row["num_clips"] for row in found} == {key: value[0] for key, value in expected.items()}
    for row in found:
        key = row["key_0"], row["key_1"]
        assert [row["clip_s"], row["speech_s"]] == pytest.approx(expected[key][1:])
    assert [row["clip_s"] for row in found] == sorted((row["clip_s"] for row in found), reverse=True)


@settings(max_examples=50, deadline=None)
@given(ROWS, CUTS)
def test_a_distribution_counts_each_value_once(rows, cuts):
    made = counted(lambda: Spread(CONFIDENCE), table_of(rows), cuts).figures()
    values = [row["asr.confidence"] for row in rows if is_number(row["asr.confidence"])]
    inside = [value for value in values if 0 <= value <= 5]
    assert made["num_clips"] == len(values)
    assert made["num_null"] == sum(row["asr.confidence"] is None for row in rows)
    assert made["num_not_finite"] == len(rows) - made["num_null"] - len(values)
    assert made["num_clips_by_bin"] == np.histogram(inside, made["edges"])[0].tolist()
    weights = [
        row["clip.duration_s"] / 3600 for row in rows if is_number(row["asr.confidence"]) and 0 <= row["asr.confidence"] <= 5
    ]
    assert made["clip_h_by_bin"] == pytest.approx(np.histogram(inside, made["edges"], weights=weights)[0].tolist())
    assert (made["num_below"], made["num_above"]) == (sum(v < 0 for v in values), sum(v > 5 for v in values))
    if values:
        assert (made["min"], made["max"]) == (min(values), max(values))
        assert made["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert made["std"] == pytest.approx(np.std(values), abs=1e-4)
        # Of so few values the sketch keeps all.
        exact = np.quantile(values, QUANTILES, method="inverted_cdf")
        assert made["quantile_rank_error"] == 0
        assert list(made["quantiles"].values()) == pytest.approx(exact.tolist())


def test_quantiles_of_many_values_stay_within_the_sketch_s_error():
    values = np.random.default_rng(0).gamma(2, 1, 200_000).astype(np.float32)
    columns = {"clip.duration_s": np.ones(len(values)), "clip.speech_share": np.ones(len(values)), "asr.confidence": values}
    made = counted(lambda: Spread(CONFIDENCE), pa.table(columns), [50_000, 120_000]).figures()
    ranks = [np.mean(values <= value) for value in made["quantiles"].values()]
    assert 0 < made["quantile_rank_error"] < 0.002
    assert ranks == pytest.approx(QUANTILES, abs=2 * made["quantile_rank_error"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(numbers, max_size=40),
    st.sampled_from([(0.0, 5.0, 10), (0.1, 0.7, 6), (-3.0, 8.0, 77), (1.0, 5.0, 80)]),
    st.booleans(),
)
def test_bins_are_those_of_a_search(values, bounds, closed_above):
    _, high, num = bounds
    edges = edges_of(bounds)
    # Edges themselves and their neighbours are where rounding could put a value in the wrong bin.
    array = np.array([math.nan if v is None else v for v in values] + [*edges, *np.nextafter(edges, -9), *np.nextafter(edges, 9)])
    found = bins_of(array, bounds, closed_above=closed_above)
    for value, place in zip(array.tolist(), found.tolist(), strict=True):
        if math.isnan(value):
            assert place == num + 2
        elif value > high:
            assert place == num + 1
        elif closed_above:
            assert place == sum(edge < value for edge in edges)
        else:
            assert place == min(num, sum(edge <= value for edge in edges))
    assert bounds_of(CONFIDENCE) == (0, 5, 10)


@settings(max_examples=50, deadline=None)
@given(ROWS, CUTS)
def test_statuses_errors_and_gaps_of_a_layer(rows, cuts):
    made = counted(lambda: LayerStatus("asr", ["asr.confidence"]), table_of(rows), cuts)
    for status in (None, "ok", "error", "abstained"):
        mine = [row["clip.duration_s"] for row in rows if row["asr.status"] == status]
        num, seconds = made.statuses.get(status or "not_made", [0, 0.0])
        assert (num, seconds) == (len(mine), pytest.approx(sum(mine)))
    num_errors = sum(row["asr.status"] == "error" for row in rows)
    assert made.errors == ({"out_of_memory": num_errors} if num_errors else {})
    assert made.num_known == {"asr.confidence": sum(is_number(row["asr.confidence"]) for row in rows)}


@settings(max_examples=50, deadline=None)
@given(ROWS, CUTS)
def test_the_ends_are_those_of_a_sort(rows, cuts):
    low, high = counted(lambda: Ends("asr.confidence", 3), table_of(rows), cuts).figures()
    known = [(row["asr.confidence"], number) for number, row in enumerate(rows) if is_number(row["asr.confidence"])]
    for made, key in ((low, lambda item: (item[0], item[1])), (high, lambda item: (-item[0], item[1]))):
        expected = [number.to_bytes(16, "big").hex() for _, number in sorted(known, key=key)[:3]]
        assert [row["clip_id"] for row in made["rows"]] == expected


def test_distinct_values_are_about_as_many_as_there_are():
    ids = np.random.default_rng(0).integers(0, 256, (20_000, 16), np.uint8)
    both = np.concatenate([ids, ids[:5000]])
    column = pa.array([row.tobytes() for row in both], pa.binary(16))
    zeros = np.zeros(len(both))
    table = pa.table({"clip.duration_s": zeros, "clip.speech_share": zeros, "clip.recording_id": column})
    for cuts in ([], [8000, 16_000]):
        made = counted(lambda: Distinct("clip.recording_id"), table, cuts).figures()
        assert made["num"] == pytest.approx(20_000, rel=0.03)
        assert made["num_low"] <= 20_000 <= made["num_high"]


def test_bands_have_their_lower_edge():
    band = Band(name="quality", column="dnsmos.ovrl", edges=[2, 3])
    codes, labels = banded(np.array([1.9, 2.0, 2.9, 3.0, math.nan]), band)
    assert [labels[int(code)].as_py() for code in codes] == ["<2", "2 to 3", "2 to 3", ">=3", None]


def fails(row: dict[str, Any], filter_: Threshold) -> bool:
    value = row[filter_.column]
    if not is_number(value):
        return filter_.drop_null
    return (filter_.min is not None and value < filter_.min) or (filter_.max is not None and value > filter_.max)


def hours(rows: list[dict[str, Any]]) -> float:
    return sum(row["clip.duration_s"] for row in rows) / 3600


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS)
def test_the_funnel_answers_what_a_filter_run_again_would(rows, cuts):
    made = counted(lambda: Funnel(FILTERS, SCALES), table_of(rows), cuts).figures()
    assert made["all_clips"] == len(rows)
    left = rows
    for step, filter_ in zip(made["steps"], FILTERS, strict=True):
        lost = [row for row in left if fails(row, filter_)]
        left = [row for row in left if not fails(row, filter_)]
        assert (step["dropped_clips"], step["kept_clips"]) == (len(lost), len(left))
        assert (step["dropped_h"], step["kept_h"]) == (pytest.approx(hours(lost)), pytest.approx(hours(left)))
    assert made["kept_clips"] == len(left)
    for place, filter_ in enumerate(FILTERS):
        others = [f for f in FILTERS if f is not filter_]
        passes_others = [row for row in rows if not any(fails(row, f) for f in others)]
        assert made["alone"][place]["dropped_clips"] == sum(fails(row, filter_) for row in rows)
        assert made["only"][place]["dropped_clips"] == sum(fails(row, filter_) for row in passes_others)
        assert made["without"][place]["kept_clips"] == len(passes_others)
    sets = {tuple(row["failed"]): row["num_clips"] for row in made["sets"]}
    for failed, num in sets.items():
        mine = [row for row in rows if tuple(f.drop_reason for f in FILTERS if fails(row, f)) == failed]
        assert num == len(mine)


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS)
def test_what_ifs_are_the_hours_of_another_threshold(rows, cuts):
    made = counted(lambda: Funnel(FILTERS, SCALES), table_of(rows), cuts).figures()
    names = [f.drop_reason for f in FILTERS]
    for what_if in made["what_ifs"]:
        place = names.index(what_if["filter"])
        for at, num, kept_h in zip(what_if["thresholds"], what_if["num_clips_kept"], what_if["clip_h_kept"], strict=True):
            moved = FILTERS[place].model_copy(update={what_if["bound"]: at})
            filters = [moved if number == place else f for number, f in enumerate(FILTERS)]
            kept = [row for row in rows if not any(fails(row, f) for f in filters)]
            assert num == len(kept)
            assert kept_h == pytest.approx(hours(kept))


def test_steps_without_a_threshold_come_first_and_in_order():
    columns = {
        "clip.duration_s": [1.0, 2.0, 4.0, 8.0, 16.0],
        "clip.speech_share": [1.0] * 5,
        "duplicates.drop_reason": ["near_copy", None, None, None, "same_text"],
        "codes.status": ["ok", "error", None, "ok", "error"],
        "asr.confidence": [1.0, 1.0, 1.0, 1.0, 1.0],
    }
    steps = (LeftOut("duplicates"), CodesNeed("codes"))
    tally = Funnel([Threshold(column="asr.confidence", min=2)], [(0.0, 4.0, 4)], steps)
    tally.add(SliceColumns(pa.table(columns)))
    made = tally.figures()
    assert made["columns"] == [None, None, "asr.confidence"]
    assert [(step["filter"], step["dropped_clips"]) for step in made["steps"]] == [
        ("duplicates.drop_reason", 2),
        ("codes.error", 2),
        ("asr.confidence<2", 1),
    ]
    assert made["alone"][1]["dropped_h"] == pytest.approx((2 + 4 + 16) / 3600)
    # Only the clip that both other steps let pass is priced: any lower bound would keep its eight seconds.
    assert made["what_ifs"][0]["clip_h_kept"][0] == pytest.approx(8 / 3600)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_a_source_s_text_fits_only_the_single_clip_of_its_recording(rows):
    need = TextNeed(("asr.text", "input.text"))
    found = need.fails(SliceColumns(table_of(rows)))
    recordings = [row["clip.recording_id"] for row in rows]
    for row, is_without in zip(rows, found.tolist(), strict=True):
        has_own = bool(row["asr.text"] and row["asr.text"].strip())
        is_single = recordings.count(row["clip.recording_id"]) == 1
        assert is_without == (not has_own and not (is_single and row["input.text"]))
