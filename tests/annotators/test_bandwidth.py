from __future__ import annotations

import numpy as np
import pytest

from annotators.bandwidth import LongTermSpectrum
from manifests.audio import resample


def bandwidth_of(audio: np.ndarray, rate: int, block: int) -> float | None:
    spectrum = LongTermSpectrum(rate)
    for first in range(0, len(audio), block):
        spectrum.add(audio[first : first + block])
    return spectrum.bandwidth_hz()


@pytest.mark.parametrize("block", [999, 1 << 18])
@pytest.mark.parametrize("rate", [8000, 24_000])
def test_the_rate_that_audio_once_had_is_found_in_any_blocks_and_channel(rate: int, block: int) -> None:
    noise = np.random.default_rng(0).normal(size=2 * rate).astype(np.float32) * 0.1
    wide = resample(noise, rate, 48_000)
    stereo = np.stack([np.zeros_like(wide), wide + np.float32(0.5)], axis=1)  # one silent channel, a constant on the other
    assert bandwidth_of(stereo, 48_000, block) == pytest.approx(rate / 2, rel=0.08)


def test_nothing_to_hear() -> None:
    assert bandwidth_of(np.full((48_000, 1), 0.3, np.float32), 48_000, 4800) is None
    assert bandwidth_of(np.ones((100, 1), np.float32), 48_000, 100) is None
