from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.signal import SignalConfig, clipped_ratio, longest_run
from annotators.snr import wada_snr_db
from manifests.audio import resample
from manifests.contracts import Audio, ClipBatch

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE


def facts(audio: Any, rate: int = RATE) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [np.asarray(audio, np.float32)], [rate])
    return SignalConfig().build().annotate(batch).to_pylist()[0]


def tone(hz: float, level: float) -> Audio:
    return (level * np.sin(2 * np.pi * hz * TIME)).astype(np.float32)


def test_levels_of_a_sine() -> None:
    found = facts(tone(440, 0.5) + 0.1)
    assert found["peak_dbfs"] == pytest.approx(20 * np.log10(0.6), abs=0.01)
    assert found["rms_dbfs"] == pytest.approx(10 * np.log10(0.125 + 0.01), abs=0.01)
    assert found["dc_offset"] == pytest.approx(0.1, abs=1e-4)
    assert found["clipped_ratio"] == 0.0


def test_silence() -> None:
    found = facts(np.zeros(RATE))
    assert (found["peak_dbfs"], found["rms_dbfs"]) == (-120.0, -120.0)
    assert (found["silence_ratio"], found["longest_silence_s"]) == (1.0, pytest.approx(1.0))
    assert (found["bandwidth_hz"], found["snr_db"], found["clipped_ratio"]) == (None, None, 0.0)
    assert found["c50_db"] is None


def test_a_pause_is_found() -> None:
    audio = tone(440, 0.3)
    audio[8000:16_000] *= 1e-3
    found = facts(audio)
    assert found["silence_ratio"] == pytest.approx(0.25, abs=0.01)
    assert found["longest_silence_s"] == pytest.approx(0.5, abs=0.021)


@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_clipping_is_found_even_when_turned_down_later(gain: float) -> None:
    clipped = np.clip(tone(200, 1.5), -1, 1)
    expected = float((np.abs(clipped) == 1).mean())
    assert facts(clipped * np.float32(gain))["clipped_ratio"] == pytest.approx(expected, abs=0.001)


def test_a_constant_and_a_quiet_clip_are_not_clipped() -> None:
    assert clipped_ratio(np.full(1000, 0.5), 0.999) == 0.0
    assert clipped_ratio(np.round(tone(50, 0.001).astype(np.float64) * 32768) / 32768, 0.999) == 0.0


@pytest.mark.parametrize("rate", [8000, 24_000])
def test_bandwidth_shows_the_rate_that_a_clip_once_had(rate: int) -> None:
    noise = np.random.default_rng(0).normal(size=2 * rate).astype(np.float32) * 0.1
    assert facts(resample(noise, rate, 48_000), 48_000)["bandwidth_hz"] == pytest.approx(rate / 2, rel=0.08)


def test_one_sample_and_none() -> None:
    assert facts(np.ones(1))["peak_dbfs"] == 0.0
    assert facts(np.zeros(0))["status"] == "abstained"


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_wada_snr_on_its_own_model_of_speech(snr_db: float) -> None:
    random = np.random.default_rng(1)
    speech = random.gamma(0.4, 1.0, 400_000) * random.choice([-1, 1], 400_000)
    noise = random.normal(size=400_000) * np.sqrt(np.mean(speech**2)) * 10 ** (-snr_db / 20)
    found = wada_snr_db(0.01 * (speech + noise))
    assert found == pytest.approx(snr_db, abs=1.0)


@given(st.lists(st.booleans(), max_size=60))
def test_longest_run(flags: list[bool]) -> None:
    text = "".join("x" if flag else " " for flag in flags)
    assert longest_run(np.array(flags, bool)) == max(map(len, text.split()), default=0)
