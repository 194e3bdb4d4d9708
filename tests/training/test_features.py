import numpy as np
import pytest
import torch

from manifests.errors import RequestError
from training.features import log_mel, mel_filters
from training.lengths import num_mel_frames, num_patches


@pytest.mark.parametrize(
    ("seconds", "mel_frames", "patches"),
    [(0.5, 52, 6), (1, 102, 13), (2, 202, 25), (3, 302, 38), (5, 502, 63), (10, 1002, 125), (15, 1502, 188), (20, 2002, 250), (25, 2502, 313)],
)  # fmt: skip
def test_lengths_are_those_of_the_published_client(seconds: float, mel_frames: int, patches: int) -> None:
    num_samples = int(seconds * 16_000)
    assert num_mel_frames(num_samples) == mel_frames
    assert num_patches(num_samples) == patches
    if seconds <= 3:
        assert log_mel(torch.zeros(num_samples), 80).shape == (80, mel_frames)


def test_the_shortest_audio_gives_one_patch_and_anything_shorter_is_refused() -> None:
    assert num_patches(321) == 1
    assert log_mel(torch.zeros(321), 128).shape == (128, 5)
    for num_samples in (0, 1, 320):
        with pytest.raises(RequestError, match="321"):
            num_patches(num_samples)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_filters_and_features_agree_with_transformers(num_mels: int) -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=num_mels)
    np.testing.assert_array_equal(mel_filters(num_mels).numpy(), extractor.mel_filters.T.astype(np.float32))
    audio = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    theirs = extractor._np_extract_fbank_features(np.pad(audio, (0, 479))[None], "cpu")[0]
    np.testing.assert_allclose(log_mel(torch.from_numpy(audio), num_mels).numpy(), theirs, atol=2e-4)
