from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.rhythm import RhythmConfig, neighbouring_times, npvi
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch


def syllables(*times_s: float, seconds: float = 4.0) -> Audio:
    """Tone bursts of 80 ms around the times."""
    t = np.arange(round(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    swell = sum(np.exp(-0.5 * ((t - at) / 0.03) ** 2) for at in times_s)
    return np.float32(0.3 * swell * np.sin(2 * np.pi * 200 * t))


def rhythm(audio: Audio, *spans_s: tuple[float, float], rate: int = 48_000) -> dict[str, Any]:
    spans = [{"start_sample": round(a * rate), "end_sample": round(b * rate)} for a, b in spans_s]
    clip = pa.Table.from_pylist([{"clip_id": bytes(16), "sample_rate_hz": rate, "speech_spans": spans}])
    batch = ClipBatch(clip.cast(pa.schema([pa.field("clip_id", pa.binary(16)), *list(clip.schema)[1:]])), [audio])
    return RhythmConfig().build().annotate(ClipBatch(batch.clips, [audio], layers={"clip": clip})).to_pylist()[0]


def test_even_syllables_and_uneven_ones() -> None:
    even = rhythm(syllables(*np.arange(0.2, 3.8, 0.25)), (0.0, 4.0))
    uneven = rhythm(syllables(*np.cumsum([0.2] + [0.15, 0.4] * 6)), (0.0, 4.0))
    assert even["npvi"] < 8.0
    # Times of 0.15 and 0.4 s in turns: 100 * 0.25 / 0.275.
    assert uneven["npvi"] == pytest.approx(91.0, abs=6.0)
    assert (even["pause_ratio"], even["num_pauses"]) == (0.0, 0)


def test_pauses_are_between_speech_and_longer_than_a_closure() -> None:
    found = rhythm(syllables(0.6, 0.9, 2.5), (0.5, 1.0), (1.1, 1.5), (2.5, 3.0))
    assert (found["pause_ratio"], found["num_pauses"]) == (pytest.approx(1.0 / 2.5), 1)
    assert found["npvi"] is None


def test_no_time_spans_a_pause() -> None:
    times = np.array([0.1, 0.3, 0.5, 2.0, 2.2, 2.5])
    assert neighbouring_times(times, [(0.0, 0.6), (1.9, 3.0)], 0.2) == [
        (pytest.approx(0.2), pytest.approx(0.2)),
        (pytest.approx(0.2), pytest.approx(0.3)),
    ]
    assert len(neighbouring_times(times, [(0.0, 1.85), (1.9, 3.0)], 0.2)) == 4  # a gap of 50 ms is none
    assert npvi([(0.2, 0.2), (0.2, 0.3)]) == pytest.approx(20.0)


def test_without_speech_nothing_is_said() -> None:
    assert rhythm(syllables(1.0, 2.0))["status"] == "abstained"
