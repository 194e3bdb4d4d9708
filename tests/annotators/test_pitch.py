from __future__ import annotations

import numpy as np
import pytest

from annotators.pitch import pitch_hz
from manifests.contracts import MODEL_RATE_HZ, Audio


def buzz(hz: np.ndarray | float, seconds: float = 1.0) -> Audio:
    """A harmonic sound with the given frequency (constant or a contour)."""
    num_samples = int(seconds * MODEL_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, num_samples)) / MODEL_RATE_HZ
    return np.asarray(sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.2, np.float32)


@pytest.mark.parametrize("hz", [75.0, 120.0, 219.0, 440.0])
def test_constant_pitch(hz: float) -> None:
    found = pitch_hz(buzz(hz))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, hz, rtol=0.005)


def test_a_glide_is_followed_without_octave_jumps() -> None:
    found = pitch_hz(buzz(np.linspace(100, 300, MODEL_RATE_HZ)))
    frames = (np.arange(len(found)) * 160 + 400) / MODEL_RATE_HZ
    np.testing.assert_allclose(found, 100 + 200 * frames, rtol=0.03)


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).normal(size=MODEL_RATE_HZ).astype(np.float32) * 0.1
    assert np.isfinite(pitch_hz(noise)).mean() < 0.05
    assert np.isnan(pitch_hz(np.zeros(MODEL_RATE_HZ, np.float32))).all()
    assert len(pitch_hz(np.ones(799, np.float32))) == 0


def test_level_does_not_matter() -> None:
    np.testing.assert_allclose(pitch_hz(buzz(150.0) * 0.01), pitch_hz(buzz(150.0)), rtol=1e-4)
