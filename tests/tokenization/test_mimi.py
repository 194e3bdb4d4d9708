from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.contracts import Audio
from manifests.errors import MismatchError, ModelUnavailable
from tests.tokenization.small_codecs import write_mimi
from tokenization import mimi
from tokenization.mimi import MimiCodec, MimiConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RATE = 24_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_mimi(tmp_path_factory.mktemp("mimi"))


def codec_at(folder: str | Path) -> MimiCodec:
    return MimiCodec(MimiConfig(kind="mimi", checkpoint=str(folder)))


def test_rate_and_size_are_the_checkpoints(folder: str, tmp_path: Path) -> None:
    codec = codec_at(folder)
    assert (codec.sample_rate_hz, codec.frame_rate_hz, codec.num_codes) == (24_000, 12.5, 2048)
    assert codec_at(write_mimi(tmp_path, num_codes=64)).num_codes == 64


def test_codes_are_those_of_transformers(folder: str, voice: Callable[..., Audio]) -> None:
    audio = voice(3.3, rate=RATE)
    codes = codec_at(folder).encode([audio])[0]
    model = transformers.MimiModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(audio)[None, None]).audio_codes[0, 0]
    np.testing.assert_array_equal(codes, expected.numpy())
    assert len(set(codes.tolist())) > 5
    assert codec_at(folder).decode(codes).shape == (1920 * len(codes),)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 12 * RATE))
def test_no_code_is_lost_at_any_length(folder: str, num_samples: int) -> None:
    codec = codec_at(folder)
    audio = np.random.default_rng(0).standard_normal(num_samples).astype(np.float32) * np.float32(0.1)
    assert len(codec.encode([audio])[0]) == codec.expected_frames(num_samples)


def test_windows_join_as_one_pass(folder: str, voice: Callable[..., Audio], monkeypatch: pytest.MonkeyPatch) -> None:
    """Mimi hears only what came before, 10 s a layer: with one layer, and 12 s kept out of use, no code may move."""
    audio = voice(64.0, rate=RATE)
    one_pass = codec_at(folder).encode([audio])[0]
    monkeypatch.setattr(mimi, "WINDOW_S", 40.0)
    monkeypatch.setattr(mimi, "OVERLAP_S", 24.0)
    np.testing.assert_array_equal(codec_at(folder).encode([audio])[0], one_pass)


def test_the_fingerprint_follows_the_weights_and_not_the_place(folder: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert codec_at(tmp_path / "copy").fingerprint() == codec_at(folder).fingerprint()
    assert codec_at(write_mimi(tmp_path / "other", seed=1)).fingerprint() != codec_at(folder).fingerprint()


def test_what_is_no_mimi_names_the_remedy(folder: str, tmp_path: Path) -> None:
    for use in (codec_at(tmp_path).setup, codec_at(tmp_path).fingerprint, lambda: codec_at(tmp_path).num_codes):
        with pytest.raises(ModelUnavailable, match=r"no .* set codec\.checkpoint to a local copy"):
            use()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(MismatchError, match="cannot be loaded"):
        codec_at(tmp_path).setup()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    with pytest.raises(MismatchError, match="model type 'encodec'"):
        codec_at(tmp_path).fingerprint()


def test_weights_that_lack_a_tensor_are_refused(folder: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("downsample.conv.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MismatchError, match=r"lacks \['downsample\.conv\.weight'\]"):
        codec_at(tmp_path).setup()
