"""The test of drift: its figures against scipy's, its verdicts on samples that did and did not move."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from manifests.audit.drift import (
    Compared,
    Periods,
    Sample,
    compare_periods,
    compare_runs,
    compared,
    judged,
    ks_distance,
    ks_p_value,
    period_edges,
    shift_std,
    stability_index,
)
from manifests.audit.figures import audit
from manifests.audit.recipe import AuditRecipe, Distribution, Drift
from manifests.audit.slices import SliceColumns, bins_of, bounds_of
from manifests.audit.work import rows_at
from manifests.ids import digest_bytes
from manifests.packs import FORMAT_VERSION as PACK_FORMAT
from manifests.recipes import load_recipe
from manifests.schema import DOCUMENTS, table_of

SCORE = Distribution(column="dnsmos.dnsmos_ovrl", title="score", low=1, high=5, num_bins=80)

PERIOD_EDGES = period_edges([f"u{number:02d}" for number in range(20)], 10)


def counts_of(values: np.ndarray) -> np.ndarray:
    return np.bincount(bins_of(values, bounds_of(SCORE)), minlength=83)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5])
def test_distance_and_p_value_are_scipy_s_but_for_the_bins(shift):
    random = np.random.default_rng(0)
    one, two = random.normal(3, 0.5, 800), random.normal(3 + shift, 0.5, 1200)
    exact = stats.ks_2samp(one, two, method="asymp")
    distance = ks_distance(counts_of(one), counts_of(two))
    assert distance <= exact.statistic + 1e-12  # bins bound it from below
    assert distance == pytest.approx(exact.statistic, abs=0.04)
    assert ks_p_value(exact.statistic, 800, 1200) == pytest.approx(exact.pvalue, rel=0.2, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.integers(2, 10_000), st.integers(2, 10_000))
def test_a_p_value_is_a_probability_and_falls_with_distance(distance, num_one, num_two):
    p = ks_p_value(distance, num_one, num_two)
    assert 0 <= p <= 1
    assert ks_p_value(min(1.0, distance + 0.1), num_one, num_two) <= p + 1e-9


def test_equal_samples_do_not_differ_and_sizes_do_not_matter():
    counts = counts_of(np.random.default_rng(0).normal(3, 0.5, 1000))
    assert ks_distance(counts, 3 * counts) == pytest.approx(0)
    assert stability_index(counts, 3 * counts) == pytest.approx(0)
    assert shift_std(SCORE, counts, 3 * counts) == pytest.approx(0)


def test_a_shift_of_one_standard_deviation_is_one():
    random = np.random.default_rng(0)
    one, two = random.normal(3.25, 0.25, 20_000), random.normal(3, 0.25, 20_000)
    assert shift_std(SCORE, counts_of(one), counts_of(two)) == pytest.approx(1.0, abs=0.03)
    assert stability_index(counts_of(one), counts_of(two)) > 0.25


def test_a_side_of_few_recordings_or_no_values_is_not_tested():
    some, none = Sample(counts_of(np.full(50, 3.0)), 30), Sample(counts_of(np.full(50, np.nan)), 30)
    few = Sample(some.counts, 19)
    assert compared("run", SCORE, "a", some, "b", few, 20) == []
    assert compared("run", SCORE, "a", some, "b", none, 20) == []
    assert len(compared("run", SCORE, "a", some, "b", some, 20)) == 1


def test_p_values_are_corrected_after_holm():
    raw = [0.001, 0.04, 0.03, 0.005]
    tests = [Compared("time", "c", str(i), "x", 1, 1, 1, 1, 0.5, 0.3, 1.0, p) for i, p in enumerate(raw)]
    found = {test.group: test.p_holm for test in judged(tests, Drift(alpha=0.01))}
    assert [found[str(i)] for i in range(4)] == pytest.approx([0.004, 0.06, 0.06, 0.015])
    assert [test.group for test in judged(tests, Drift(alpha=0.01)) if test.is_drift] == ["0"]
    assert not any(test.is_drift for test in judged(tests, Drift(alpha=0.01, smallest_distance=0.6)))


def made_clips(shift: float) -> pa.Table:
    """Two sources in 20 units of 40 recordings of three clips; the last tenth of the source ``a`` is shifted."""
    random, rows = np.random.default_rng(0), []
    for unit in range(20):
        for recording in range(40):
            mean = 3 + random.normal(0, 0.3)
            source = "a" if recording % 2 else "b"
            for _ in range(3):
                value = mean + random.normal(0, 0.1) + (shift if unit >= 18 and source == "a" else 0)
                rows.append((f"u{unit:02d}", unit * 40 + recording, source, value))
    units, recordings, sources, values = zip(*rows, strict=True)
    return pa.table(
        {
            "clip.unit": units,
            "clip.recording_id": pa.array(
                [digest_bytes(bytes([number & 255, number >> 8])) for number in recordings], pa.binary(16)
            ),
            "input.source": sources,
            SCORE.column: pa.array(values, pa.float32()),
            "clip.duration_s": np.ones(len(rows)),
            "clip.speech_share": np.ones(len(rows)),
        }
    )


def counted_periods(table: pa.Table, edges: list[int], make: Callable[[], Periods]) -> Periods:
    total = make()
    for start, stop in itertools.pairwise(edges):
        part = make()
        part.add(SliceColumns(table.slice(start, stop - start)))
        total.merge(pickle.loads(pickle.dumps(part)))
    return total


def made_periods(shift: float, cuts: tuple[int, ...] = ()) -> list[Compared]:
    """Of ``made_clips``, cut at so many units: slices are whole ones."""
    table = made_clips(shift)
    edges = [0, *(cut * 120 for cut in cuts), table.num_rows]
    total = counted_periods(table, edges, lambda: Periods([SCORE], PERIOD_EDGES, Drift(), has_source=True))
    return judged(compare_periods(total), Drift())


def test_periods_are_spans_of_about_as_many_units():
    assert PERIOD_EDGES == ["u02", "u04", "u06", "u08", "u10", "u12", "u14", "u16", "u18"]
    assert period_edges(["a", "b", "c"], 10) == ["b", "c"]
    assert period_edges(["a"], 10) == period_edges([], 10) == []


def test_what_moved_is_found_and_what_did_not_is_not():
    drifts = [(test.kind, test.group) for test in made_periods(-0.6) if test.is_drift]
    assert drifts == [("time", "a, part 10 of 10")]
    assert not any(test.is_drift for test in made_periods(0.0))


def test_recordings_and_clips_are_counted_by_side_whatever_the_slices():
    whole = made_periods(-0.6)
    assert whole == made_periods(-0.6, (3, 4, 17))
    test = next(test for test in whole if test.is_drift)
    assert (test.num_recordings, test.num_clips) == (40, 120)
    assert (test.against_recordings, test.against_clips) == (360, 1080)
    assert test.shift_std < -1


@pytest.mark.parametrize("most_sources", [100, 1])
def test_recordings_of_shuffled_rows_count_once_whatever_the_slices(most_sources):
    table = made_clips(-0.6)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    rules = Drift(most_sources=most_sources)
    total = counted_periods(
        shuffled, [*range(0, 2400, 100), 2400], lambda: Periods([SCORE], [], rules, has_source=True, is_shuffled=True)
    )
    assert sum(total.num_recordings.values()) == pytest.approx(800, rel=0.02)
    (one, *_) = (test for test in compare_periods(total) if test.kind == "source")
    assert (one.num_recordings, one.against_recordings) == (pytest.approx(400, rel=0.02), pytest.approx(400, rel=0.02))
    assert (one.num_clips, one.against_clips) == (1200, 1200)


def test_clips_of_few_recordings_are_no_evidence():
    """A hundred thousand clips of two recordings apiece are four observations."""
    one, two = Sample(counts_of(np.full(100_000, 3.0)), 25), Sample(counts_of(np.full(100_000, 3.2)), 25)
    (test,) = compared("run", SCORE, "a", one, "b", two, 20)
    assert test.p < 1e-6  # all of 25 recordings differ
    mixed = counts_of(np.concatenate([np.full(60_000, 3.0), np.full(40_000, 3.2)]))
    (test,) = compared("run", SCORE, "a", Sample(mixed, 25), "b", two, 20)
    assert test.p < 0.01
    mostly = counts_of(np.concatenate([np.full(20_000, 3.0), np.full(80_000, 3.2)]))
    (test,) = compared("run", SCORE, "a", Sample(mostly, 25), "b", two, 20)
    assert test.p > 0.5


def test_runs_are_compared_where_their_bins_agree():
    random = np.random.default_rng(0)

    def row(values: np.ndarray, column: str = SCORE.column, high: float = 5.0) -> dict[str, object]:
        counts = counts_of(values)
        sums = {"num_clips_by_bin": counts[1:-2].tolist(), "num_below": int(counts[0]), "num_above": int(counts[-2])}
        return {"column": column, "title": "score", "edges": np.linspace(1, high, 81).tolist(), **sums}

    now, then = row(random.normal(2.5, 0.4, 5000)), row(random.normal(3, 0.4, 5000))
    (test,) = compare_runs([now], [then], ("now", "then"), (500, 500), 20)
    assert (test.kind, test.group, test.against) == ("run", "now", "then")
    assert test.distance == pytest.approx(0.47, abs=0.03)
    assert compare_runs([now], [row(np.ones(9), high=6.0)], ("now", "then"), (500, 500), 20) == []
    assert compare_runs([now], [row(np.ones(9), "signal.snr_db")], ("now", "then"), (500, 500), 20) == []


def write_pack(folder: Path, mean_s: float) -> str:
    """URI of a pack of 40 recordings of 50 documents each, all shuffled; lengths are much the same within a recording."""
    random, rows = np.random.default_rng(int(mean_s)), []
    for recording in range(40):
        length_s = mean_s + random.normal(0, 1.0)
        for number in range(50):
            num_samples = round(16_000 * (length_s + random.normal(0, 0.1)))
            clips = [{"clip_id": bytes([recording, number]) * 8, "num_samples": num_samples}]
            turn = {"num_samples": num_samples, "recording_id": bytes([recording]) * 16, "clips": clips}
            row = {"key": f"{recording}-{number}", "shard": "train-000000.tar", "offset": 0, "num_bytes": 0, "kind": "clip"}
            rows.append({**row, "tasks": [], "turns": [turn], "num_samples": num_samples})
    shuffled = [rows[place] for place in random.permutation(len(rows)).tolist()]
    (folder / "manifest").mkdir(parents=True)
    pq.write_table(table_of(shuffled, DOCUMENTS), folder / "manifest" / "train.parquet", row_group_size=250)
    head = {"format_version": PACK_FORMAT, "pack_id": folder.name, "splits": ["train"], "sample_rate_hz": 16_000, "counts": {}}
    (folder / "pack.json").write_text(json.dumps(head))
    return str(folder)


def test_a_document_of_a_pack_is_no_observation_but_its_recording_is(tmp_path):
    recipe = load_recipe(AuditRecipe, "manifests", "audit")
    before = audit(rows_at(write_pack(tmp_path / "before", 5.0)), recipe)
    moved = audit(rows_at(write_pack(tmp_path / "moved", 7.0)), recipe, before=before)
    slightly = audit(rows_at(write_pack(tmp_path / "slightly", 5.3)), recipe, before=before)
    assert before.totals["num_recordings"] == 40
    tests = [next(row for row in made.drift["rows"] if row["column"] == "clip.duration_s") for made in (moved, slightly)]
    assert [(test["num_clips"], test["num_recordings"], test["against_recordings"]) for test in tests] == 2 * [(2000, 40, 40)]
    assert [test["is_drift"] for test in tests] == [True, False]
    # With documents for observations the same distance would be one.
    assert ks_p_value(tests[1]["distance"], 2000, 2000) < 1e-6
