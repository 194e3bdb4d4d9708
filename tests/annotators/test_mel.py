from __future__ import annotations

import numpy as np
import pytest

from annotators.mel import mel_power


@pytest.mark.parametrize(("n_fft", "hop", "num_mels"), [(400, 160, 40), (1024, 256, 120)])
def test_equals_torchaudio(n_fft: int, hop: int, num_mels: int) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchaudio.transforms")
    audio = np.random.default_rng(0).normal(size=16_000).astype(np.float32) * 0.1
    theirs = transforms.MelSpectrogram(
        16_000, n_fft, hop_length=hop, n_mels=num_mels, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )(torch.from_numpy(audio)).T.numpy()
    ours = mel_power(audio, 16_000, n_fft, hop, num_mels)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-6)


def test_long_audio_is_worked_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.random.default_rng(1).normal(size=20_000).astype(np.float32)
    whole = mel_power(audio, 16_000, 400, 160, 40)
    monkeypatch.setattr("annotators.mel.FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(mel_power(audio, 16_000, 400, 160, 40), whole, rtol=1e-5)
