"""Rows and groups are those of the whole table, however it is cut into slices."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.conditions import parse_condition
from manifests.errors import RequestError
from manifests.selection import Sorting, length_of, select, select_groups
from tests.manifests.made_rows import MadeRows, made_clips

CLIPS = made_clips(200)


@given(
    slice_rows=st.integers(1, 300),
    limit=st.integers(0, 250),
    is_falling=st.booleans(),
    where=st.sampled_from([None, "snr_db > 20", "language = zh or text is null", "snr_db > 900"]),
    column=st.sampled_from([None, "signal.snr_db", "signal.num_peaks", "clip.language"]),
)
def test_selected_rows_are_those_of_the_whole_table(slice_rows, limit, is_falling, where, column):
    rows = MadeRows(CLIPS, slice_rows)
    condition = where and parse_condition(where, rows)
    found = select(rows, condition, ["asr.text"], [Sorting(column, is_falling)] if column else [], limit)
    expected = CLIPS.filter(condition.mask(CLIPS)) if condition else CLIPS
    assert found.num_rows == expected.num_rows
    assert found.hours == pytest.approx((pc.sum(expected["clip.duration_s"]).as_py() or 0.0) / 3600)
    if column:
        expected = expected.sort_by([(column, "descending" if is_falling else "ascending")])
        assert expected[column].slice(0, limit).null_count >= expected[column].null_count - max(0, expected.num_rows - limit)
    assert found.table["asr.text"].to_pylist() == expected["asr.text"].slice(0, limit).to_pylist()


@given(
    slice_rows=st.integers(1, 300),
    by=st.sampled_from([("clip.language",), ("input.source", "clip.language"), ("signal.num_peaks",)]),
)
def test_groups_are_those_of_the_whole_table(slice_rows, by):
    found = select_groups(MadeRows(CLIPS, slice_rows), None, by, limit=100)
    expected = CLIPS.group_by(list(by)).aggregate([("clip.duration_s", "sum"), ([], "count_all")])
    told = {tuple(row[name] for name in by): (row["rows"], row["hours"]) for row in found.table.to_pylist()}
    assert told.keys() == {tuple(row[name] for name in by) for row in expected.to_pylist()}
    for row in expected.to_pylist():
        rows, hours = told[tuple(row[name] for name in by)]
        assert (rows, hours) == (row["count_all"], pytest.approx(row["clip.duration_s_sum"] / 3600))
    assert found.table["hours"].to_pylist() == sorted(found.table["hours"].to_pylist(), reverse=True)
    assert (found.num_rows, found.hours) == (200, pytest.approx(pc.sum(CLIPS["clip.duration_s"]).as_py() / 3600))


def test_columns_that_only_show_are_read_of_the_shown_slices_alone():
    class Counting(MadeRows):
        num_wide = 0

        def read(self, part, columns):
            self.num_wide += "asr.text" in columns
            return super().read(part, columns)

    rows = Counting(CLIPS, 10)
    select(rows, parse_condition("snr_db > 20", rows), ["asr.text"], limit=3)
    assert rows.num_wide == 1


def test_what_cannot_be_grouped_by_or_sorted_by_is_refused():
    rows = MadeRows(CLIPS.append_column("codes.codes", pa.array([[1]] * 200)))
    with pytest.raises(RequestError, match="holds list"):
        select_groups(rows, None, ["codes.codes"])
    with pytest.raises(RequestError, match=r"cannot be sorted by codes.codes"):
        select(rows, None, [], [Sorting("codes.codes")])


@pytest.mark.parametrize(
    ("columns", "seconds"),
    [
        ({"num_samples": [16000], "sample_rate_hz": [8000]}, 2.0),
        ({"start_sample": [8000], "end_sample": [32000], "sample_rate_hz": [8000]}, 3.0),
        ({"duration_s": [1.5]}, 1.5),
    ],
)
def test_length_of_rows_of_every_kind(columns, seconds):
    table = pa.table(columns)
    length = length_of(MadeRows(table))
    assert length.seconds(table).to_pylist() == [seconds]


def test_inputs_have_no_length():
    found = select_groups(MadeRows(pa.table({"outcome": ["stored", "refused", "stored"]})), None, ["outcome"])
    assert (found.hours, found.table.to_pydict()) == (None, {"outcome": ["stored", "refused"], "rows": [2, 1]})
