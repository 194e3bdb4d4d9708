"""The made set of near-duplicates: copies are what they say, and a fold's threshold knows nothing of the fold."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.content import Strangers, fitted_threshold
from benchmarks.quality.copies import COPIES, sixteen_bits, trimmed
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio

MOVED = {"trimmed at both ends", "silence in front", "trimmed, -6 dB, MP3 64, Opus 24"}


@pytest.mark.parametrize("name", sorted(COPIES))
def test_a_copy_is_the_clip_in_another_form(name: str, conversation: Audio) -> None:
    audio = sixteen_bits(conversation[120_000:184_000])
    copy, rate = COPIES[name](audio, np.random.default_rng(0))
    heard = resample(copy, rate, MODEL_RATE_HZ)
    assert copy.dtype == np.float32
    assert np.isfinite(copy).all()
    assert copy.tobytes() != audio.tobytes()
    if name not in MOVED:
        assert abs(len(heard) - len(audio)) < 0.1 * MODEL_RATE_HZ
    # The envelope of its spectrum from 300 to 2000 Hz is still the clip's.
    shapes = [np.log(np.abs(np.fft.rfft(one, 1 << 17))[2458:16358].reshape(100, -1).mean(axis=1)) for one in (audio, heard)]
    assert np.corrcoef(shapes)[0, 1] > 0.9


@pytest.mark.parametrize(("whole_s", "least_s"), [(10.0, 3.0), (3.2, 3.0), (2.0, 1.6)])
def test_a_trimmed_copy_keeps_three_seconds_or_four_fifths(whole_s: float, least_s: float) -> None:
    audio = np.arange(int(whole_s * MODEL_RATE_HZ), dtype=np.float32)
    for seed in range(50):
        left, _ = trimmed(audio, np.random.default_rng(seed))
        assert least_s * MODEL_RATE_HZ <= len(left) <= len(audio)
        assert np.array_equal(np.diff(left), np.ones(len(left) - 1))


def test_a_folds_threshold_leaves_out_every_pair_with_a_clip_of_the_fold() -> None:
    left, right = np.triu_indices(10, 1)
    evidence = np.where((left % 5 == 2) | (right % 5 == 2), 9.0, 1.0)
    strangers = Strangers(left, right, np.zeros(len(left), int), evidence, 0)
    copies = np.full(100, 7.0)
    assert fitted_threshold(copies, strangers, 2) == 4.0
    assert fitted_threshold(copies, strangers, 1) == 8.0
    assert fitted_threshold(copies, strangers, None) == 8.0
