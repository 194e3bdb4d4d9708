from __future__ import annotations

import pyarrow as pa
import pytest

from manifests.gates import CLIP_COLUMNS, clip_column
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


@pytest.mark.parametrize("name", CLIP_COLUMNS)
def test_no_clips_no_values(name: str) -> None:
    assert clip_column(CLIPS.slice(0, 0), name).to_pylist() == []
