"""What was ingested, by its facts, and licences that contradict each other."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

from manifests.audit.holdings import RECORDING_H, Disagreements, Sums

IDS = [bytes([number]) * 16 for number in range(6)]
LICENCES = [
    # Recording 0 has one licence twice, 1 two in one unit, 2 one and a gap, 3 one in each of two units, 4 none.
    (0, "CC0-1.0"),
    (0, "CC0-1.0"),
    (1, "CC0-1.0"),
    (1, "CC-BY-4.0"),
    (2, "CC0-1.0"),
    (2, None),
    (3, "CC0-1.0"),
    (None, "CC0-1.0"),
    (4, None),
    (3, "CC-BY-NC-4.0"),
]


def table_of(rows: list[tuple[int | None, str | None]]) -> pa.Table:
    ids = pa.array([None if number is None else IDS[number] for number, _ in rows], pa.binary(16))
    return pa.table({"recording_id": ids, "licence": pa.array([licence for _, licence in rows], pa.string())})


@pytest.mark.parametrize("cuts", [(0, 10), (0, 7, 10), (0, 0, 9, 10)])
def test_recordings_of_two_licences_are_found_in_and_across_units(cuts):
    total = Disagreements(frozenset({IDS[3]}), most=5)
    for start, stop in itertools.pairwise(cuts):
        part = Disagreements(frozenset({IDS[3]}), most=5)
        part.add(table_of(LICENCES[start:stop]))
        total.merge(part)
    assert total.figures() == {
        "num_recordings": 2,
        "first": [
            {"recording_id": IDS[1].hex(), "licences": ["CC-BY-4.0", "CC0-1.0"]},
            {"recording_id": IDS[3].hex(), "licences": ["CC-BY-NC-4.0", "CC0-1.0"]},
        ],
    }


def test_hours_of_recordings_by_their_facts():
    table = pa.table(
        {
            "codec": ["mp3", "flac", "mp3", None],
            "num_samples": [3600 * 8000, 3600 * 8000, 7200 * 8000, 0],
            "sample_rate_hz": [8000, 16_000, 8000, 8000],
        }
    )
    total = Sums(("codec",), RECORDING_H)
    for start in (0, 2):
        part = Sums(("codec",), RECORDING_H)
        part.add(table.slice(start, 2))
        total.merge(part)
    assert total.rows() == [
        {"codec": "mp3", "num": 2, "recording_h": 3.0},
        {"codec": None, "num": 1, "recording_h": 0.0},
        {"codec": "flac", "num": 1, "recording_h": 0.5},
    ]


def test_rows_alone_are_counted():
    sums = Sums(("reason",))
    sums.add(pa.table({"reason": ["not_audio", "truncated", "not_audio"]}))
    assert sums.rows() == [{"reason": "not_audio", "num": 2}, {"reason": "truncated", "num": 1}]
