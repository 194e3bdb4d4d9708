from __future__ import annotations

import numpy as np
import pytest

from annotators.reverberation import c50_db
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio


def in_a_room(audio: Audio, rt60_s: float) -> np.ndarray:
    """The audio heard beside noise that decays by 60 dB in ``rt60_s``, as loud as itself."""
    time = np.arange(int(rt60_s * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    tail = np.random.default_rng(0).normal(size=len(time)) * np.exp(-np.log(1000.0) * time / rt60_s)
    tail[0] = np.sqrt((tail**2).sum())
    size = len(audio) + len(tail)
    return np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(tail, size), size)[: len(audio)]


def test_clarity_falls_with_the_rooms_reverberation(conversation: Audio) -> None:
    dry, *rooms = (c50_db(x, MODEL_RATE_HZ) for x in (conversation, *(in_a_room(conversation, rt) for rt in (0.3, 0.6, 1.2))))
    assert None not in (dry, *rooms)
    assert dry > rooms[0] > rooms[1] > rooms[2]
    assert rooms[2] < 10 < dry


def test_rate_and_level_hardly_matter(conversation: Audio) -> None:
    expected = c50_db(conversation, MODEL_RATE_HZ)
    assert c50_db(conversation * 0.01, MODEL_RATE_HZ) == pytest.approx(expected, abs=0.1)
    assert c50_db(resample(conversation, MODEL_RATE_HZ, 44_100), 44_100) == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("num_samples", [0, 100, 2000])
def test_too_little_to_tell(num_samples: int, conversation: Audio) -> None:
    assert c50_db(conversation[:num_samples], MODEL_RATE_HZ) is None
    assert c50_db(np.zeros(MODEL_RATE_HZ), MODEL_RATE_HZ) is None
