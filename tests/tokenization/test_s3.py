from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manifests.contracts import Audio
from manifests.errors import MismatchError, ModelUnavailable, RequestError
from tokenization.s3 import FRAMES_PER_CODE, HOP_SAMPLES, OVERLAP_FRAMES, WINDOW_FRAMES, S3Codec, S3Config
from tokenization.windows import windows

torch = pytest.importorskip("torch")
model_v2 = pytest.importorskip("s3tokenizer.model_v2")

CODE_SAMPLES = HOP_SAMPLES * FRAMES_PER_CODE
RATE = 16_000


@pytest.fixture(scope="module")
def network() -> object:
    torch.manual_seed(0)
    shape = model_v2.ModelConfig(n_mels=128, n_audio_state=128, n_audio_head=2, n_audio_layer=2)
    return model_v2.S3TokenizerV2("speech_tokenizer_v2_25hz", shape).eval()


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module) -> str:
    path = str(tmp_path_factory.mktemp("s3") / "s3.pt")
    torch.save(network.state_dict(), path)
    return path


def codec_at(path: str) -> S3Codec:
    return S3Codec(S3Config(kind="s3", weights_path=path))


@given(st.integers(0, 200 * RATE))
def test_codes_come_evenly_however_long_the_audio(num_samples: int) -> None:
    codec = codec_at("nowhere")
    assert codec.expected_frames(num_samples + CODE_SAMPLES) in (codec.expected_frames(num_samples) + step for step in (0, 1))
    assert abs(codec.expected_frames(num_samples) - num_samples / CODE_SAMPLES) <= 1


@settings(max_examples=8, deadline=None)
@given(num_samples=st.integers(25 * RATE, 130 * RATE), seed=st.integers(0, 3))
@example(num_samples=30 * RATE, seed=0)
@example(num_samples=30 * RATE + HOP_SAMPLES, seed=0)
@example(num_samples=round(52.5 * RATE), seed=0)  # the package loses 2 s here, and from 78 to 82 s
@example(num_samples=53 * RATE + 1, seed=0)
@example(num_samples=80 * RATE, seed=0)
def test_no_code_is_lost_at_any_length(weights_path: str, num_samples: int, seed: int) -> None:
    codec = codec_at(weights_path)
    audio = np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) * np.float32(0.1)
    assert len(codec.encode([audio])[0]) == codec.expected_frames(num_samples)


def test_codes_are_those_of_the_package(weights_path: str, network: torch.nn.Module, voice: Callable[..., Audio]) -> None:
    from s3tokenizer.utils import log_mel_spectrogram

    audio = voice(3.3)
    mel = log_mel_spectrogram(torch.from_numpy(audio))
    codes, lengths = network.quantize(mel[None], torch.tensor([mel.shape[1]]))
    np.testing.assert_array_equal(codec_at(weights_path).encode([audio])[0], codes[0, : int(lengths[0])].numpy())


def test_windows_join_as_one_pass(weights_path: str, network: torch.nn.Module, voice: Callable[..., Audio]) -> None:
    """Attention sees a whole window, so a window moves codes anywhere in it; at the seams no more than elsewhere."""
    from s3tokenizer.utils import log_mel_spectrogram

    is_equal, is_near = [], []
    for seed in range(4):
        audio = voice(72.0, seed)
        mel = log_mel_spectrogram(torch.from_numpy(audio))
        with torch.inference_mode():
            hidden, _ = network.encoder(mel[None], torch.tensor([mel.shape[1]]))
            one_pass = network.quantizer.encode(hidden)[0].numpy()
        is_equal.append(codec_at(weights_path).encode([audio])[0] == one_pass)
        places = np.arange(len(one_pass))
        seams = [window.end for window in windows(len(one_pass), WINDOW_FRAMES, OVERLAP_FRAMES)[:-1]]
        assert len(seams) == 2
        is_near.append(np.any([np.abs(places - seam) < 13 for seam in seams], axis=0))
    equal, near = np.concatenate(is_equal), np.concatenate(is_near)
    assert equal.mean() > 0.7
    assert equal[near].mean() > equal[~near].mean() - 0.05


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


@pytest.mark.parametrize("name", ["junk.onnx", "junk.pt"])
@pytest.mark.parametrize("data", [b"no weights", b"", np.random.default_rng(0).bytes(2000), b"\x2e" * 9], ids=len)
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MismatchError, match=r"neither \.onnx nor|holds no S3"):
        codec_at(str(tmp_path / name)).setup()


def test_other_weights_are_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    junk = tmp_path / "junk.pt"
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
