from __future__ import annotations

import numpy as np
import pytest

from annotators.pitch import CEILING_HZ, FLOOR_HZ, FRAMES_AT_ONCE, HOP_SAMPLES, PEAK, VOICED_CONFIDENCE, pitch_hz
from manifests.contracts import MODEL_RATE_HZ, Audio

EDGE = 3  # frames whose window reaches far beyond the audio


def buzz(hz: np.ndarray | float, seconds: float = 1.0) -> Audio:
    """A harmonic sound with the given frequency (constant or a contour)."""
    num_samples = int(seconds * MODEL_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, num_samples)) / MODEL_RATE_HZ
    return np.asarray(sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.2, np.float32)


@pytest.mark.parametrize("hz", [75.0, 120.0, 219.0, 440.0])
def test_constant_pitch(hz: float) -> None:
    found = pitch_hz(buzz(hz))[EDGE:-EDGE]
    np.testing.assert_allclose(found, hz, rtol=0.02)
    assert np.median(found) == pytest.approx(hz, rel=0.005)


def test_a_glide_is_followed_without_octave_jumps() -> None:
    found = pitch_hz(buzz(np.linspace(100, 300, MODEL_RATE_HZ)))
    frames = np.arange(len(found)) * HOP_SAMPLES / MODEL_RATE_HZ
    np.testing.assert_allclose(found[EDGE:-EDGE], 100 + 200 * frames[EDGE:-EDGE], rtol=0.03)


@pytest.mark.parametrize("snr_db", [10.0, 0.0])
def test_noise_loses_no_voice_and_makes_no_octave_errors(snr_db: float) -> None:
    voice = buzz(150.0)
    noise = np.random.default_rng(0).normal(size=len(voice)).astype(np.float32)
    found = pitch_hz(voice + noise * np.float32(np.std(voice) * 10 ** (-snr_db / 20)))
    assert np.isfinite(found).mean() > 0.95
    np.testing.assert_allclose(found[np.isfinite(found)], 150.0, rtol=0.05)


def test_pitches_are_those_of_the_package(conversation: Audio) -> None:
    """Over several blocks, with silence of which the network alone would say anything."""
    swift_f0 = pytest.importorskip("swift_f0")
    audio = np.concatenate([conversation[100_000:300_000], np.zeros(20_000, np.float32), conversation[300_000:330_077]])
    audio = audio - audio.mean(dtype=np.float64).astype(np.float32)
    audio *= np.float32(PEAK / np.abs(audio).max())
    theirs = swift_f0.SwiftF0(threads=1).detect(audio, MODEL_RATE_HZ, FLOOR_HZ, CEILING_HZ)
    found = pitch_hz(audio)
    np.testing.assert_array_equal(np.isfinite(found), theirs.confidence >= VOICED_CONFIDENCE)
    np.testing.assert_allclose(found[np.isfinite(found)], theirs.pitch_hz[np.isfinite(found)], rtol=1e-4)
    assert len(found) > 2 * FRAMES_AT_ONCE


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).normal(size=MODEL_RATE_HZ).astype(np.float32) * 0.1
    assert np.isfinite(pitch_hz(noise)).mean() < 0.05
    assert np.isnan(pitch_hz(np.zeros(MODEL_RATE_HZ, np.float32))).all()
    assert len(pitch_hz(np.ones(799, np.float32))) == 0


def test_level_and_dc_do_not_matter() -> None:
    np.testing.assert_allclose(pitch_hz(buzz(150.0) + np.float32(0.4)), pitch_hz(buzz(150.0)), rtol=1e-3)
    np.testing.assert_allclose(pitch_hz(buzz(150.0) * np.float32(1e-3)), pitch_hz(buzz(150.0)), rtol=1e-3)
