"""Impossible rows: spans and words against a loop, and rules that made corpora plant no offenders of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.audit.recipe import AuditRecipe, Limit
from manifests.audit.rules import WORD_TOLERANCE, Offenders, rules_for
from manifests.audit.slices import SliceColumns
from manifests.schema import CLIP_SPANS

WORDS = pa.list_(pa.struct([("word", pa.string()), ("start_sample", pa.int64()), ("end_sample", pa.int64())]))
SCHEMA = pa.schema(
    [
        ("clip.clip_id", pa.binary(16)),
        ("clip.unit", pa.string()),
        ("clip.start_sample", pa.int64()),
        ("clip.end_sample", pa.int64()),
        ("clip.sample_rate_hz", pa.int32()),
        ("clip.duration_s", pa.float64()),
        ("clip.speech_samples", pa.int64()),
        ("clip.overlap_samples", pa.int64()),
        ("clip.speech_spans", CLIP_SPANS),
        ("clip.overlap_spans", CLIP_SPANS),
        ("clip.speech_share", pa.float64()),
        ("recording.num_samples", pa.int64()),
        ("input.licence", pa.string()),
        ("asr.status", pa.string()),
        ("asr.text", pa.string()),
        ("asr.language", pa.string()),
        ("asr.words", WORDS),
        ("codes.num_codes", pa.int32()),
        ("document.num_text_tokens", pa.int32()),
        ("signal.snr_db", pa.float32()),
        ("signal.status", pa.string()),
    ]
)
CLEAN = {
    "clip.start_sample": 8000,
    "clip.end_sample": 24_000,
    "clip.sample_rate_hz": 8000,
    "clip.duration_s": 2.0,
    "clip.speech_samples": 100,
    "clip.overlap_samples": 0,
    "clip.speech_spans": [{"start_sample": 0, "end_sample": 16_000}],
    "clip.overlap_spans": [],
    "clip.speech_share": 0.5,
    "recording.num_samples": 24_000,
    "input.licence": "CC0-1.0",
    "asr.text": "so it is",
    # Words are at 16 kHz.
    "asr.words": [{"word": "so", "start_sample": 0, "end_sample": 32_000}],
    "codes.num_codes": 50,
    "document.num_text_tokens": 60,
    "signal.snr_db": 20.0,
}


def offenders(rows: list[dict[str, Any]], recipe: AuditRecipe | None = None) -> dict[str, list[int]]:
    """Rule -> numbers of the rows that break it."""
    whole = [{"clip.clip_id": number.to_bytes(16, "big"), "clip.unit": "u", **CLEAN, **row} for number, row in enumerate(rows)]
    slice_ = SliceColumns(pa.Table.from_pylist(whole, schema=SCHEMA))
    found: dict[str, list[int]] = {}
    for rule in rules_for(recipe or AuditRecipe(name="made"), SCHEMA)[0]:
        tally = Offenders(rule, 100)
        tally.add(slice_)
        assert tally.num_clips == len(tally.first)
        found.setdefault(rule.name, []).extend(int(row["clip_id"], 16) for row in tally.first)
    return {name: numbers for name, numbers in found.items() if numbers}


def test_a_row_that_can_be_breaks_no_rule():
    assert offenders([{}, {"clip.speech_spans": [], "asr.words": None, "codes.num_codes": None, "signal.snr_db": None}]) == {}


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ("clip_outside_recording", {"clip.start_sample": -1}),
        ("clip_outside_recording", {"recording.num_samples": 23_999}),
        (
            "clip_without_length",
            {"clip.end_sample": 8000, "clip.speech_spans": [], "clip.speech_samples": 0, "asr.text": None, "asr.words": []},
        ),
        ("speech_longer_than_clip", {"clip.speech_samples": 16_001}),
        ("speech_longer_than_clip", {"clip.speech_samples": -1, "asr.text": None}),
        ("overlap_longer_than_clip", {"clip.overlap_samples": 16_001}),
        ("speech_span_outside_clip", {"clip.speech_spans": [{"start_sample": 0, "end_sample": 16_001}]}),
        ("speech_span_outside_clip", {"clip.speech_spans": [{"start_sample": -1, "end_sample": 5}]}),
        ("overlap_span_outside_clip", {"clip.overlap_spans": [{"start_sample": 9, "end_sample": 5}]}),
        ("words_outside_clip", {"asr.words": [{"word": "so", "start_sample": 0, "end_sample": 32_001 + WORD_TOLERANCE}]}),
        ("words_outside_clip", {"asr.words": [{"word": "so", "start_sample": -1 - WORD_TOLERANCE, "end_sample": 9}]}),
        ("text_without_speech", {"clip.speech_samples": 0}),
        ("licence_missing", {"input.licence": None}),
        ("codes_against_duration", {"codes.num_codes": 53}),
        ("codes_against_duration", {"codes.num_codes": 47}),
        ("text_tokens_against_duration", {"document.num_text_tokens": 61}),
        ("number_not_finite", {"signal.snr_db": float("inf")}),
        ("number_not_finite", {"signal.snr_db": float("nan")}),
    ],
)
def test_each_rule_finds_its_row_and_no_other_rule_does(rule, row):
    assert offenders([{}, row, {}]) == {rule: [1]}


def test_text_of_blanks_is_no_text_and_tolerances_hold():
    row = {"clip.speech_samples": 0, "asr.text": "  "}
    late = {"asr.words": [{"word": "so", "start_sample": -WORD_TOLERANCE, "end_sample": 32_000 + WORD_TOLERANCE}]}
    assert offenders([row, late, {"codes.num_codes": 52}, {"codes.num_codes": 48}]) == {}


def test_limits_are_inclusive_and_nulls_are_not_looked_at():
    recipe = AuditRecipe(name="made", limits=[Limit(rule="snr", columns=["signal.snr_db", "gone.column"], min=-20, max=100)])
    rows = [{"signal.snr_db": value} for value in (-20.0, 100.0, None, -20.5, 100.5)]
    assert offenders(rows, recipe) == {"snr": [3, 4]}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(-3, 25), st.integers(-3, 25)), max_size=4), max_size=6))
def test_spans_outside_are_those_of_a_loop(spans):
    rows = [
        {
            "clip.start_sample": 0,
            "clip.end_sample": 20,
            "clip.speech_spans": [{"start_sample": start, "end_sample": end} for start, end in row],
        }
        for row in spans
    ]
    expected = [number for number, row in enumerate(spans) if any(start < 0 or end > 20 or end < start for start, end in row)]
    assert offenders(rows).get("speech_span_outside_clip", []) == expected


def test_the_first_offenders_are_kept_over_slices():
    rule = next(rule for rule in rules_for(AuditRecipe(name="made"), SCHEMA)[0] if rule.name == "clip_outside_recording")
    total = Offenders(rule, 3)
    for start in range(0, 10, 2):
        part = Offenders(rule, 3)
        rows = [
            {"clip.clip_id": number.to_bytes(16, "big"), "clip.unit": "u", **CLEAN, "clip.start_sample": -1}
            for number in (start, start + 1)
        ]
        part.add(SliceColumns(pa.Table.from_pylist(rows, schema=SCHEMA)))
        total.merge(part)
    assert (total.num_checked, total.num_clips) == (10, 10)
    assert [int(row["clip_id"], 16) for row in total.first] == [0, 1, 2]
    assert total.clip_s == pytest.approx(20.0)
    assert np.isclose(total.first[0]["values"]["clip.start_sample"], -1)
