from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.prosody import ProsodyConfig, usual_pitch
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch


def facts(audio: Audio) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [audio], [MODEL_RATE_HZ])
    return ProsodyConfig().build().annotate(batch).to_pylist()[0]


def test_speech_has_every_fact_in_its_range(conversation: Audio) -> None:
    found = facts(conversation[350_000:450_000])
    assert 60 <= found["pitch_p05_hz"] <= found["pitch_hz"] <= found["pitch_p95_hz"] <= 500
    assert 0 < found["pitch_std_semitones"] < 8
    assert 0.2 < found["voiced_ratio"] < 0.95
    assert -45 < found["loudness_lufs"] < -10
    assert 1 < found["syllable_rate_hz"] < 8


def test_loudness_is_that_of_the_standard() -> None:
    """EBU Tech 3341: a 1 kHz sine at -23 dBFS on both channels is -23 LUFS; on one channel 3 LU less."""
    time = np.arange(5 * MODEL_RATE_HZ) / MODEL_RATE_HZ
    sine = (10 ** (-23 / 20) * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    assert facts(sine)["loudness_lufs"] == pytest.approx(-26.0, abs=0.2)


def test_nulls_where_a_fact_makes_no_sense() -> None:
    noise = np.random.default_rng(0).normal(size=MODEL_RATE_HZ).astype(np.float32) * 0.1
    assert facts(noise)["pitch_hz"] is None
    short = facts(noise[:6000])
    assert (short["loudness_lufs"], short["syllable_rate_hz"]) == (None, None)
    silent = facts(np.zeros(MODEL_RATE_HZ, np.float32))
    assert (silent["status"], silent["loudness_lufs"], silent["voiced_ratio"]) == ("ok", None, 0.0)


def test_octave_errors_are_left_out() -> None:
    contour = np.concatenate([np.linspace(180, 220, 90), [95.0] * 5, [410.0] * 5])
    assert (usual_pitch(contour).min(), usual_pitch(contour).max()) == (180, 220)
