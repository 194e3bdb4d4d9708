from __future__ import annotations

from pathlib import Path

import pytest

from annotators.weights import packaged_path, path_digest
from manifests.errors import ModelUnavailable


def test_finds_a_file_of_a_package_and_of_a_namespace_package() -> None:
    assert Path(packaged_path("silero_vad", "data", "silero_vad_16k_sequence.onnx")).is_file()
    assert Path(packaged_path("pyannote", "audio", "sample", "sample.wav")).is_file()


def test_a_missing_package_or_file_is_told_in_one_line() -> None:
    with pytest.raises(ModelUnavailable, match=r"'nosuchpackage' is not installed; install the versions"):
        packaged_path("nosuchpackage", "weights.bin")
    with pytest.raises(ModelUnavailable, match=r"no 'nosuch\.onnx'"):
        packaged_path("silero_vad", "nosuch.onnx")


def test_a_folder_is_hashed_by_names_and_contents(tmp_path: Path) -> None:
    for folder, name, content in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    digests = [path_digest(str(tmp_path / folder)) for folder in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_another_file_under_the_same_name_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"old")
    first, folder = path_digest(str(file)), path_digest(str(tmp_path))
    file.write_bytes(b"newer")
    assert path_digest(str(file)) != first
    assert path_digest(str(tmp_path)) != folder
    file.write_bytes(b"old")
    assert path_digest(str(file)) == first
