"""Frames and folds of the voice activity topic: what is counted, and that a fold is not scored with what it chose."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.vad import Track, count, cross_validated, f1, frames_of, over_noise
from manifests.spans import Span

HOP = 160


def track(kind: str, group: str) -> Track:
    return Track(kind, group, np.zeros(100 * HOP, np.float32), [Span(20 * HOP, 60 * HOP)])


def test_frames_are_hit_missed_or_false() -> None:
    assert count(track("a", "a"), [Span(30 * HOP, 70 * HOP)]).tolist() == [30, 10, 10]
    assert f1(np.array([[30, 10, 10]])) == pytest.approx(0.75)
    assert frames_of([Span(0, 81), Span(250, 320)], 320).tolist() == [True, False]


def test_a_group_does_not_choose_its_own_window() -> None:
    """The window of 64 ms is best for b and c, that of 0 for a: a is scored with 64, the others with what is best without them."""
    tracks = [track("x", "a"), track("x", "b"), track("x", "c")]
    good, bad = np.array([40, 0, 0]), np.array([20, 20, 20])
    worst = np.array([0, 40, 40])
    counts = {ms: [worst] * 3 for ms in (32, 96, 128, 160)} | {0: [good, bad, bad], 64: [bad, good, good]}
    assert cross_validated(tracks, counts)["a"] == 64


def test_noise_has_the_level_asked_for() -> None:
    audio = np.tile(np.repeat([0.1, 0.0], 1600), 20).astype(np.float32)
    noise = over_noise(audio, 20.0, 0) - audio
    assert 20 * np.log10(0.1 / noise.std()) == pytest.approx(20.0, abs=0.5)
