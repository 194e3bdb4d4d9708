from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from annotators.mel import mel_power
from annotators.spectrum import NUM_CEPSTRA, NUM_MELS, NUM_VALUES, SHAPES, SpectrumConfig, cepstra, shapes
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch


def vectors(*audio: Audio) -> list[np.ndarray | None]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(audio))], pa.binary(16))
    table = SpectrumConfig().build().annotate(ClipBatch(pa.table({"clip_id": ids}), audio))
    return [None if row is None else np.array(row) for row in table["spectrum"].to_pylist()]


def shape(vector: np.ndarray | None, statistic: int, name: str) -> float:
    assert vector is not None
    return float(vector.reshape(3, -1)[statistic, NUM_CEPSTRA + SHAPES.index(name)])


@pytest.fixture(scope="module")
def speech(conversation: Audio) -> Audio:
    return conversation[350_000:390_000]


def test_the_vector_has_the_length_that_is_stated(speech: Audio) -> None:
    (vector,) = vectors(speech)
    assert vector is not None
    assert vector.shape == (NUM_VALUES,) == (78,)


def test_silence_around_the_words_and_gain_move_nothing(speech: Audio) -> None:
    silence = np.zeros(MODEL_RATE_HZ, np.float32)
    plain, padded, quiet = vectors(speech, np.concatenate([silence, speech, silence]), speech / 10)
    assert plain is not None
    np.testing.assert_allclose(padded, plain, rtol=1e-3, atol=0.25)  # two frames at each edge more
    # 20 dB less: the first coefficient's mean falls by 20 sqrt(40), all else stays.
    moved = plain - quiet
    assert moved[0] == pytest.approx(20 * np.sqrt(NUM_MELS), abs=0.01)
    np.testing.assert_allclose(moved[1:], 0.0, atol=1e-3)


def test_silence_and_too_little_sound_are_abstained_from(speech: Audio) -> None:
    click = np.zeros(MODEL_RATE_HZ, np.float32)
    click[8000:8100] = 0.5
    assert vectors(np.zeros(MODEL_RATE_HZ, np.float32), click, speech[:100], np.zeros(0, np.float32)) == [None] * 4


def test_cepstra_are_the_orthonormal_transform() -> None:
    from scipy.fft import dct

    mel_FM = np.random.default_rng(0).uniform(0.1, 1.0, (7, NUM_MELS))
    np.testing.assert_allclose(cepstra(mel_FM), dct(10 * np.log10(mel_FM), norm="ortho")[:, :NUM_CEPSTRA], atol=1e-9)


def test_shapes_say_what_they_are_named_for() -> None:
    t = np.arange(MODEL_RATE_HZ) / MODEL_RATE_HZ
    low, high = (np.float32(0.3 * np.sin(2 * np.pi * hz * t)) for hz in (300, 3000))
    noise = np.float32(np.random.default_rng(0).normal(0, 0.1, MODEL_RATE_HZ))
    deep, bright, hiss, beats = vectors(low, high, noise, low * np.float32(np.sin(2 * np.pi * 4 * t) > 0))
    assert shape(deep, 0, "centroid") < shape(bright, 0, "centroid")
    assert shape(deep, 0, "high_share") < 0.01 < 0.99 < shape(bright, 0, "high_share")
    assert shape(deep, 0, "spread") < shape(hiss, 0, "spread")
    assert shape(deep, 0, "flatness") < shape(hiss, 0, "flatness") < 0.0
    assert shape(deep, 0, "slope_db") < 0.0
    assert shape(deep, 1, "flux_db") < shape(beats, 1, "flux_db")


def test_a_silent_frame_has_finite_shapes() -> None:
    assert np.isfinite(shapes(mel_power(np.zeros(4000, np.float32), MODEL_RATE_HZ, 400, 160, NUM_MELS))).all()
