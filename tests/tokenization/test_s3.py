from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.contracts import Audio
from manifests.errors import MismatchError, ModelUnavailable, RequestError
from tokenization.s3 import WINDOW_SAMPLES, S3Codec, S3Config

torch = pytest.importorskip("torch")
model_v2 = pytest.importorskip("s3tokenizer.model_v2")


@pytest.fixture(scope="module")
def network() -> object:
    torch.manual_seed(0)
    shape = model_v2.ModelConfig(n_mels=128, n_audio_state=128, n_audio_head=2, n_audio_layer=2)
    return model_v2.S3TokenizerV2("speech_tokenizer_v2_25hz", shape).eval()


@pytest.fixture
def weights_path(tmp_path: Path, network: torch.nn.Module) -> str:
    path = str(tmp_path / "s3.pt")
    torch.save(network.state_dict(), path)
    return path


def codec_at(path: str) -> S3Codec:
    return S3Codec(S3Config(kind="s3", weights_path=path))


@given(whole=st.integers(0, 5), rest=st.integers(0, WINDOW_SAMPLES - 1))
def test_windows_add_up(whole: int, rest: int) -> None:
    codec = codec_at("nowhere")
    assert codec.expected_frames(whole * WINDOW_SAMPLES + rest) == 750 * whole + codec.expected_frames(rest)
    assert abs(codec.expected_frames(rest) - rest / 640) <= 1


def test_codes_are_those_of_the_package(weights_path: str, network: torch.nn.Module, voice: Callable[..., Audio]) -> None:
    from s3tokenizer.utils import log_mel_spectrogram

    audio = voice(3.3)
    mel = log_mel_spectrogram(torch.from_numpy(audio))
    codes, lengths = network.quantize(mel[None], torch.tensor([mel.shape[1]]))
    np.testing.assert_array_equal(codec_at(weights_path).encode([audio])[0], codes[0, : int(lengths[0])].numpy())


def test_long_audio_is_cut_at_thirty_seconds(weights_path: str, voice: Callable[..., Audio]) -> None:
    codec, audio = codec_at(weights_path), voice(52.0)
    codes = codec.encode([audio])[0]
    assert len(codes) == codec.expected_frames(len(audio)) == 1300
    parts = codec.encode([audio[:WINDOW_SAMPLES], audio[WINDOW_SAMPLES:]])
    np.testing.assert_array_equal(codes, np.concatenate(parts))


def test_the_fingerprint_follows_the_weights(weights_path: str, tmp_path: Path, network: torch.nn.Module) -> None:
    copy, other = tmp_path / "copy.pt", str(tmp_path / "other.pt")
    copy.write_bytes(Path(weights_path).read_bytes())
    torch.save({name: tensor + 1 for name, tensor in network.state_dict().items()}, other)
    assert codec_at(str(copy)).fingerprint() == codec_at(weights_path).fingerprint()
    assert codec_at(other).fingerprint() != codec_at(weights_path).fingerprint()


def test_absent_weights_name_the_remedy() -> None:
    for use in (codec_at("nowhere.onnx").setup, codec_at("nowhere.onnx").fingerprint):
        with pytest.raises(ModelUnavailable, match=r"nowhere\.onnx.*codec\.weights_path"):
            use()


def test_other_weights_are_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"no weights")
    with pytest.raises(MismatchError, match=r"neither \.onnx nor"):
        codec_at(str(junk)).setup()
    torch.save({"weight": torch.zeros(1)}, junk)
    with pytest.raises(MismatchError, match="holds no S3 tokenizer v2"):
        codec_at(str(junk)).setup()
    cut = dict(network.state_dict())
    cut.pop("encoder.blocks.0.attn.query.weight")
    torch.save(cut, junk)
    with pytest.raises(MismatchError, match="do not fit"):
        codec_at(str(junk)).setup()


def test_it_does_not_decode(weights_path: str) -> None:
    with pytest.raises(RequestError, match="encoder only"):
        codec_at(weights_path).decode(np.zeros(3, np.uint16))
