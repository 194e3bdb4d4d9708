"""Steady sounds that limits are fitted on are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.made_audio import STEADY_SOUNDS, steady_sound
from manifests.contracts import MODEL_RATE_HZ


@pytest.mark.parametrize("kind", STEADY_SOUNDS)
def test_a_steady_sound_keeps_its_level(kind: str) -> None:
    audio = steady_sound(kind, np.random.default_rng(0))
    assert (audio.dtype, len(audio)) == (np.float32, 5 * MODEL_RATE_HZ)
    assert np.abs(audio).max() == pytest.approx(0.5)
    levels = audio.reshape(5, -1).std(axis=1)
    assert levels.max() < 1.5 * levels.min()


@pytest.mark.parametrize(("kind", "fall_db"), [("white noise", 0.0), ("pink noise", 3.0), ("brown noise", 6.0)])
def test_noise_falls_by_its_colour_an_octave(kind: str, fall_db: float) -> None:
    power = np.abs(np.fft.rfft(steady_sound(kind, np.random.default_rng(1)))) ** 2
    octaves = [10 * np.log10(power[low * 5 : 2 * low * 5].mean()) for low in (100, 200, 400, 800, 1600, 3200)]
    assert np.diff(octaves).mean() == pytest.approx(-fall_db, abs=0.5)
