from __future__ import annotations

import numpy as np
import pytest

from annotators.pitch import pitch_hz
from annotators.syllables import intensity_db, syllable_rate_hz
from manifests.contracts import MODEL_RATE_HZ, Audio


def syllables(rate_hz: float, seconds: float) -> Audio:
    """A voiced sound whose level rises and falls ``rate_hz`` times a second."""
    time = np.arange(int(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    voice = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9))
    return np.asarray(voice * 0.2 * (0.55 - 0.45 * np.cos(2 * np.pi * rate_hz * time)), np.float32)


def rate_of(audio: Audio) -> float | None:
    return syllable_rate_hz(audio, np.isfinite(pitch_hz(audio)))


@pytest.mark.parametrize("rate_hz", [2.0, 4.0, 6.0])
def test_counts_rises_and_falls(rate_hz: float) -> None:
    assert rate_of(syllables(rate_hz, 4.0)) == pytest.approx(rate_hz, rel=0.1)


def test_a_pause_is_no_speaking_time() -> None:
    part, pause = syllables(4.0, 2.0), np.zeros(2 * MODEL_RATE_HZ, np.float32)
    assert rate_of(np.concatenate([part, pause, part])) == pytest.approx(4.0, rel=0.1)


def test_unvoiced_rises_and_silence_are_no_syllables() -> None:
    audio = syllables(4.0, 2.0)
    assert syllable_rate_hz(audio, np.zeros(196, bool)) == 0.0
    assert rate_of(np.zeros(MODEL_RATE_HZ, np.float32)) is None


def test_intensity_is_level_in_db() -> None:
    assert intensity_db(np.full(MODEL_RATE_HZ, 0.1, np.float32))[50] == pytest.approx(-20.0, abs=0.01)
