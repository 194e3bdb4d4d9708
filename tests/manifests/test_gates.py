from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.gates import CLIP_COLUMNS, clip_column, longest_pause_s
from manifests.schema import CLIP_SPANS

CLIPS = pa.table(
    {
        "sample_rate_hz": pa.array([8000, 48_000, 16_000], pa.int32()),
        "start_sample": pa.array([100, 0, 0], pa.int64()),
        "end_sample": pa.array([16_100, 48_000, 16_000], pa.int64()),
        "speech_samples": pa.array([9000, 24_000, 0], pa.int64()),
        "overlap_samples": pa.array([0, 12_000, 0], pa.int64()),
        "speech_spans": pa.array(
            [
                [(0, 4000), (6000, 9000), (13_000, 15_000)],  # the silence at its end is no pause
                [(12_000, 36_000)],
                [],
            ],
            CLIP_SPANS,
        ),
    }
)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("duration_s", [2.0, 1.0, 1.0]),
        ("speech_share", [0.5625, 0.5, 0.0]),
        ("overlap_share", [0.0, 0.25, 0.0]),
        ("longest_pause_s", [0.5, 0.0, 0.0]),
    ],
)
def test_columns_of_the_clip_itself(name: str, values: list[float]) -> None:
    assert clip_column(CLIPS, name).to_pylist() == values


@given(st.lists(st.lists(st.integers(0, 50), max_size=8, unique=True), max_size=6), st.integers(0, 3))
def test_longest_pauses_of_a_table_are_those_of_its_rows(edges, start):
    spans = [[*zip(sorted(row)[::2], sorted(row)[1::2], strict=False)] for row in edges]
    clips = pa.table({"sample_rate_hz": pa.array([10] * len(spans), pa.int32()), "speech_spans": pa.array(spans, CLIP_SPANS)})
    clips = clips.append_column("start_sample", pa.array([0] * len(spans))).append_column(
        "end_sample", pa.array([50] * len(spans))
    )
    some = clips.slice(start)
    assert clip_column(some, "longest_pause_s").to_pylist() == [longest_pause_s(row) for row in some.to_pylist()]


@pytest.mark.parametrize("name", CLIP_COLUMNS)
def test_no_clips_no_values(name: str) -> None:
    assert clip_column(CLIPS.slice(0, 0), name).to_pylist() == []
