from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifests.contracts import Audio
from manifests.errors import ContractError, MismatchError, ModelUnavailable, RequestError
from manifests.store import Store
from tokenization.codec import FsqCodec, FsqConfig, build_network, save_codec

SMALL = FsqConfig(num_mels=40, width=16, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    save_codec(Store(str(tmp_path)), SMALL, build_network(SMALL))
    return str(tmp_path)


def test_the_fingerprint_follows_weights_and_shape_and_not_the_place(folder: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("codec.json", "codec.safetensors"):
        (elsewhere / name).write_bytes((tmp_path / name).read_bytes())
    assert FsqCodec(str(elsewhere)).fingerprint() == FsqCodec(folder).fingerprint()
    torch.manual_seed(1)
    save_codec(Store(str(elsewhere)), SMALL, build_network(SMALL))
    assert FsqCodec(str(elsewhere)).fingerprint() != FsqCodec(folder).fingerprint()


def test_threads_do_not_move_codes_and_are_given_back(folder: str, voice: Callable[..., Audio]) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    codec, audio = FsqCodec(folder), voice(2.0)
    expected = codec.encode([audio])[0]
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(codec.encode([audio])[0], expected)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_decode_fills_whole_frames(folder: str) -> None:
    codec = FsqCodec(folder)
    assert codec.decode(np.array([0, 6560, 17], np.uint16)).shape == (3 * 640,)
    with pytest.raises(ContractError, match=r"they are 0\.\.6560"):
        codec.decode(np.array([6561], np.uint16))


def test_files_that_are_absent_or_of_another_shape(folder: str, tmp_path: Path) -> None:
    for use in (FsqCodec(str(tmp_path / "none")).setup, FsqCodec(str(tmp_path / "none")).fingerprint):
        with pytest.raises(ModelUnavailable, match="tokenizer train"):
            use()
    Store(folder).write("codec.json", b'{"num_mels": 40, "width": 32, "encoder_blocks": 1, "decoder_blocks": 1}')
    with pytest.raises(MismatchError, match="does not fit"):
        FsqCodec(folder).setup()
    Store(folder).write("codec.json", b'{"breadth": 32}')
    with pytest.raises(RequestError, match="'breadth' is unknown"):
        FsqCodec(folder).setup()
