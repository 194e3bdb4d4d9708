from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.contracts import Audio
from tokenization.mel import FLOOR, griffin_lim, log_mel, mel_filters


@given(st.integers(0, 30))
def test_a_frame_a_hop(num_frames: int) -> None:
    mel = log_mel(np.zeros(160 * num_frames, np.float32), 80)
    assert mel.shape == (num_frames, 80)
    assert mel.dtype == np.float32
    assert (mel == np.float32(np.log(np.float32(FLOOR)))).all()


@pytest.mark.parametrize("num_mels", [20, 80, 128])
def test_no_bin_is_deaf(num_mels: int) -> None:
    filters = mel_filters(num_mels)
    assert (filters.max(axis=1) > 0.1).all()
    assert (filters <= 1).all()


def test_a_full_scale_sine_has_its_half() -> None:
    at = np.arange(16_000) / 16_000
    mel = log_mel(np.sin(2 * np.pi * 1000 * at).astype(np.float32), 80)
    peaks = np.exp(mel[10:-10]).max(axis=1)
    assert (np.abs(peaks - 0.5) < 0.3).all()  # spread over two triangles, and the window's main lobe
    assert (mel[10:-10].argmax(axis=1) == mel[50].argmax()).all()


def test_griffin_lim_gives_audio_with_the_same_spectrum(voice: Callable[..., Audio]) -> None:
    audio = voice(2.0)
    mel = log_mel(audio, 80)
    again = griffin_lim(mel)
    assert again.shape == audio.shape
    assert again.dtype == np.float32
    loud = mel > mel.max() - 5
    error = np.abs(log_mel(again, 80) - mel)[loud].mean()
    assert error < 0.25 * np.abs(mel - mel.mean(axis=0))[loud].mean()
    np.testing.assert_array_equal(griffin_lim(mel), again)


def test_one_frame_and_none() -> None:
    assert griffin_lim(np.zeros((0, 80), np.float32)).shape == (0,)
    assert griffin_lim(np.full((1, 80), -3.0, np.float32)).shape == (160,)
