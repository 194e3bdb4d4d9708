"""The arithmetic of lengths is what the published client and the layers themselves do, for every length of audio."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.errors import RequestError
from training.adaptor import Adaptor
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.encoder import AudioEncoder
from training.features import log_mel
from training.lengths import (
    LONGEST_SAMPLES,
    MIN_SAMPLES,
    PIECE_SAMPLES,
    num_adaptor_frames,
    num_dropped_samples,
    num_encoder_frames,
    num_heard_tokens,
    num_mel_frames,
    num_patches,
    num_valid_frames,
    pieces,
)

CONFIG = ModelConfig(
    encoder=EncoderConfig(num_mels=4, width=4, num_heads=1, num_layers=1),
    adaptor=AdaptorConfig(inner_width=4),
    decoder=DecoderConfig(width=4, inner_width=4, num_heads=1, num_kv_heads=1, num_layers=1),
)
one_piece = st.integers(MIN_SAMPLES, LONGEST_SAMPLES)


def of_reference(num_samples: int) -> int:
    """Section 1.5, as written there: M = (N + 479) // 160, e = ((M - 2) + 1) // 2 // 2, n = (e - 1) // 2 + 1."""
    wav_len = (num_samples + 479) // 160 - 2
    e = (wav_len + 1) // 2 // 2
    return (e - 1) // 2 + 1


@settings(max_examples=2000)
@given(one_piece)
@example(MIN_SAMPLES)
@example(PIECE_SAMPLES)
@example(LONGEST_SAMPLES)
def test_patches_are_those_of_the_reference(num_samples: int) -> None:
    assert num_patches(num_samples) == of_reference(num_samples) >= 1


@pytest.mark.slow
def test_patches_of_every_length_there_is() -> None:
    counts = [num_patches(n) for n in range(MIN_SAMPLES, LONGEST_SAMPLES + 1)]
    assert counts == [of_reference(n) for n in range(MIN_SAMPLES, LONGEST_SAMPLES + 1)]
    assert (counts[0], counts[-1]) == (1, 375)
    assert all(0 <= after - before <= 1 for before, after in pairwise(counts))


@settings(max_examples=30, deadline=None)
@given(one_piece)
@example(MIN_SAMPLES)
@example(LONGEST_SAMPLES)
def test_the_layers_make_as_many_frames(num_samples: int) -> None:
    """Without numbers: shapes of mels at every stage, and frames of the valid mels behind encoder and adaptor."""
    mel_frames = num_mel_frames(num_samples)
    assert mel_frames <= 2 * CONFIG.encoder.num_positions
    with torch.device("meta"):
        encoder, adaptor = AudioEncoder(CONFIG.encoder), Adaptor(CONFIG)
        frames = encoder(torch.empty(1, 4, mel_frames), torch.empty(1, dtype=torch.int64))
        assert frames.shape[1] >= num_encoder_frames(num_valid_frames(mel_frames))
        own = torch.empty(1, num_encoder_frames(num_valid_frames(mel_frames)), 4)
        assert adaptor(own).shape[1] == num_patches(num_samples)
        assert adaptor(frames).shape[1] >= num_patches(num_samples)


@settings(max_examples=25, deadline=None)
@given(st.integers(MIN_SAMPLES, 40_000))
@example(MIN_SAMPLES)
def test_features_have_the_frames_and_the_encoder_fills_exactly_its_own(num_samples: int) -> None:
    torch.manual_seed(num_samples)
    mel = log_mel(0.1 * torch.randn(num_samples), 4)
    assert mel.shape[1] == num_mel_frames(num_samples)
    num_valid = num_valid_frames(mel.shape[1])
    filled = AudioEncoder(CONFIG.encoder)(mel[None], torch.tensor([num_valid]))[0].abs().sum(1) > 0
    assert int(filled.sum()) == num_encoder_frames(num_valid)
    assert num_adaptor_frames(int(filled.sum())) == num_patches(num_samples)


@pytest.mark.parametrize("num_samples", [0, 1, 320])
def test_audio_without_a_patch_is_refused(num_samples: int) -> None:
    for count in (num_patches, pieces, num_heard_tokens):
        with pytest.raises(RequestError, match=f"{num_samples} samples; one patch needs 321"):
            count(num_samples)


def test_a_piece_past_the_encoders_positions_is_refused() -> None:
    with pytest.raises(RequestError, match=r"479681 samples.*479680"):
        num_patches(LONGEST_SAMPLES + 1)


@settings(max_examples=500)
@given(
    st.one_of(st.integers(MIN_SAMPLES, 4_000_000), st.integers(0, 9).map(lambda n: (n + 1) * PIECE_SAMPLES)),
    st.integers(-330, 330),
)
def test_longer_audio_is_heard_in_pieces_and_a_tail_without_a_patch_is_dropped_and_told(length: int, off: int) -> None:
    num_samples = max(MIN_SAMPLES, length + off)
    spans = pieces(num_samples)
    assert [start for start, _ in spans] == [PIECE_SAMPLES * number for number in range(len(spans))]
    assert all(stop - start == PIECE_SAMPLES for start, stop in spans[:-1])
    assert MIN_SAMPLES <= spans[-1][1] - spans[-1][0] <= PIECE_SAMPLES
    assert 0 <= num_dropped_samples(num_samples) == num_samples - spans[-1][1] < MIN_SAMPLES
    assert num_heard_tokens(num_samples) == sum(of_reference(stop - start) + 2 for start, stop in spans)
