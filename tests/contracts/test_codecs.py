"""What every audio codec must do, run against each of them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifests.contracts import MODEL_RATE_HZ, Audio, AudioCodec, check_codes
from manifests.errors import ContractError, RequestError
from manifests.store import Store
from tests.tokenization.small_codecs import write_mimi
from tokenization.codec import FsqCodec, FsqConfig, save_codec
from tokenization.codec_clips import SpokenClip
from tokenization.codec_training import CodecTraining, train_codec
from tokenization.mimi import MimiCodec, MimiConfig
from tokenization.s3 import S3Codec, S3Config

RATE = MODEL_RATE_HZ
LENGTHS = [1, 2, 159, 160, 161, 399, 400, 401, 639, 640, 641, 799, 800, 801, RATE, RATE + 1, 20_011, 31_999, 33_333, 47_999]


def noise(num_samples: int, seed: int = 0) -> Audio:
    """Noise whose loudness wanders, so that codes differ from frame to frame."""
    random = np.random.default_rng(seed)
    loudness = np.interp(np.arange(num_samples), np.arange(0, 60_000, 500), 10 ** random.uniform(-3, -0.5, 120))
    return (random.standard_normal(num_samples) * loudness).clip(-1, 1).astype(np.float32)


def make_fsq(folder: Path) -> AudioCodec:
    """A codec of a few training steps: its codes spread over the codebook, as an untrained one's do not."""
    config = FsqConfig(num_mels=40, width=32, encoder_blocks=1, decoder_blocks=1)
    training = CodecTraining(steps=30, batch_s=5.0)
    trained = train_codec([SpokenClip(noise(RATE * 2, seed), None) for seed in range(3)], config, training)
    save_codec(Store(str(folder)), config, trained.network)
    return FsqCodec(str(folder))


def make_s3(folder: Path) -> AudioCodec:
    """The package's own network, small and with random weights: real loading and real windows, no meaning."""
    torch = pytest.importorskip("torch")
    model_v2 = pytest.importorskip("s3tokenizer.model_v2")
    shape = model_v2.ModelConfig(n_mels=128, n_audio_state=64, n_audio_head=1, n_audio_layer=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = model_v2.S3TokenizerV2("speech_tokenizer_v2_25hz", shape)
    torch.save(network.state_dict(), folder / "s3.pt")
    return S3Codec(S3Config(kind="s3", weights_path=str(folder / "s3.pt")))


def make_mimi(folder: Path) -> AudioCodec:
    return MimiCodec(MimiConfig(kind="mimi", checkpoint=write_mimi(folder)))


MAKERS: dict[str, Callable[[Path], AudioCodec]] = {"fsq": make_fsq, "mimi": make_mimi, "s3": make_s3}
STATED = {"fsq": (25.0, 6561, 16_000), "mimi": (12.5, 2048, 24_000), "s3": (25.0, 6561, 16_000)}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AudioCodec:
    """Not set up: each test may be the first to need the weights."""
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def test_it_is_a_codec(codec: AudioCodec) -> None:
    assert isinstance(codec, AudioCodec)
    assert codec.name
    assert codec.version
    assert (codec.frame_rate_hz, codec.num_codes, codec.sample_rate_hz) == STATED[codec.name]


def test_it_travels_before_setup_and_after(codec: AudioCodec) -> None:
    before = pickle.loads(pickle.dumps(codec))
    codec.setup()
    after = pickle.loads(pickle.dumps(codec))
    assert len(pickle.dumps(codec)) < 2000  # weights stay behind
    audio = noise(RATE)
    expected = codec.encode([audio])[0]
    for travelled in (before, after):
        np.testing.assert_array_equal(travelled.encode([audio])[0], expected)
        assert travelled.fingerprint() == codec.fingerprint()


def test_counts_range_and_type(codec: AudioCodec) -> None:
    for num_samples in LENGTHS:
        codes = codec.encode([noise(num_samples)])[0]
        assert codes.dtype == np.uint16
        assert codes.shape == (codec.expected_frames(num_samples),)
        check_codes(codes, num_samples, codec)
    # To the frame: what an interleave and a duration are reckoned with.
    assert abs(codec.expected_frames(60 * codec.sample_rate_hz) - 60 * codec.frame_rate_hz) <= 1
    assert codec.expected_frames(1) == 1


@pytest.mark.parametrize("audio", [np.zeros(RATE, np.float32), np.sign(noise(RATE)), np.zeros(1, np.float32)])
def test_silence_clipping_and_one_sample(codec: AudioCodec, audio: Audio) -> None:
    codes = codec.encode([audio])[0]
    assert len(codes) == codec.expected_frames(len(audio)) > 0
    assert int(codes.max()) < codec.num_codes


def test_nothing_has_no_codes(codec: AudioCodec) -> None:
    assert codec.encode([]) == []
    codes = codec.encode([np.zeros(0, np.float32)])[0]
    assert codes.dtype == np.uint16
    assert len(codes) == codec.expected_frames(0) == 0


def test_sounds_differ_in_codes(codec: AudioCodec) -> None:
    assert len(set(codec.encode([noise(3 * RATE)])[0].tolist())) > 3


def test_items_do_not_influence_each_other(codec: AudioCodec) -> None:
    items = [noise(n, seed) for seed, n in enumerate((RATE, 1, 40_123, 0, 7_777))]
    together = codec.encode(items)
    for item, codes in zip(items, together, strict=True):
        np.testing.assert_array_equal(codec.encode([item])[0], codes)
    for codes, reversed_codes in zip(together, codec.encode(items[::-1])[::-1], strict=True):
        np.testing.assert_array_equal(codes, reversed_codes)


def test_it_decodes_or_says_why_not(codec: AudioCodec) -> None:
    codes = codec.encode([noise(RATE)])[0]
    try:
        audio = codec.decode(codes)
    except RequestError as error:
        assert "encoder only" in str(error)  # noqa: PT017 (a codec may refuse; one that does must say so)
        return
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    assert len(audio) == len(codes) * codec.sample_rate_hz / codec.frame_rate_hz
    assert float(np.abs(audio).max()) <= 1.0
    np.testing.assert_array_equal(codec.decode(codes), audio)
    assert len(codec.decode(codes[:0])) == 0


def test_a_code_that_does_not_exist_is_not_decoded(codec: AudioCodec) -> None:
    for wrong in (-1, codec.num_codes):
        with pytest.raises((ContractError, RequestError), match=rf"they are 0\.\.{codec.num_codes - 1}|encoder only"):
            codec.decode(np.array([5, wrong, 7], np.int64))
