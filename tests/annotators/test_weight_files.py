from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from annotators.weight_files import ctranslate2_type, fault_of

TENSORS = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float16)}


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    return path


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({name: torch.from_numpy(value) for name, value in TENSORS.items()}, path)
    return path


@pytest.fixture
def converted(tiny_whisper: str, tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes((Path(tiny_whisper) / "model.bin").read_bytes())
    return path


@pytest.mark.parametrize("kind", ["tensors", "pickled", "converted"])
def test_a_whole_file_has_no_fault_and_an_empty_or_shorter_one_has(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    assert fault_of(str(path)) is None
    whole = path.read_bytes()
    for left in (len(whole) - 1, len(whole) // 2, 40):
        short = path.with_stem(f"short{left}")
        short.write_bytes(whole[:left])
        assert fault_of(str(short)), left
    path.with_stem("empty").touch()
    assert fault_of(str(path.with_stem("empty"))) == "it is empty"


@pytest.mark.parametrize(
    "data", [b"\0\1", b"\xff" * 64, b"\4\0\0\0\0\0\0\0[1]\n", b"\2\0\0\0\0\0\0\0{}x", b"\x0c\0\0\0\0\0\0\0" + b'{"a": "bcd"}']
)
def test_a_safetensors_file_with_another_header_is_at_fault(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert fault_of(str(path))


def test_a_changed_byte_in_an_archive_breaks_its_checksum(pickled: Path) -> None:
    data = bytearray(pickled.read_bytes())
    where = data.index(TENSORS["a"].tobytes())
    data[where] ^= 1
    pickled.write_bytes(data)
    assert "checksum of" in str(fault_of(str(pickled)))


def test_a_pickle_of_old_is_left_to_its_library(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert fault_of(str(path)) is None


def test_a_file_that_was_mended_is_looked_at_again(tensors: Path) -> None:
    import os

    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-4])
    assert "bytes where its header wants" in str(fault_of(str(tensors)))
    tensors.write_bytes(whole)
    os.utime(tensors, (1, 1))  # another time of change than the damaged file's, whatever the clock's resolution
    assert fault_of(str(tensors)) is None


def test_ctranslate2_files_say_what_they_are(converted: Path, pickled: Path, tensors: Path) -> None:
    assert ctranslate2_type(str(converted)) == "WhisperSpec"
    assert ctranslate2_type(str(pickled)) is None
    assert ctranslate2_type(str(tensors)) is None
