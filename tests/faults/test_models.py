"""A model that cannot run: the build stops before any audio is read, with one line that says the remedy, and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

pytestmark = pytest.mark.slow

CLASSIFIER = {"kind": "audio_classifier", "dimension": "emotion"}


@pytest.fixture(scope="module")
def models(tiny_whisper: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of checkpoints, each with one fault."""
    folder = tmp_path_factory.mktemp("models")
    tensors = safetensors.numpy.save({"a": np.zeros(100, np.float32)})
    whisper = (Path(tiny_whisper) / "model.bin").read_bytes()
    for name, config, file, data in (
        ("of_another_type", {"model_type": "bert"}, "model.safetensors", tensors),
        ("of_the_future", {"model_type": "wav2vec9", "transformers_version": "99.1"}, "model.safetensors", tensors),
        ("cut_short", {"model_type": "wav2vec2"}, "model.safetensors", tensors[:-8]),
        ("whisper_cut_short", {}, "model.bin", whisper[: len(whisper) // 2]),
        ("no_whisper", {}, "model.bin", b"of something else altogether"),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        (folder / name / file).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"kind": "whisperx", "model": "./missing"}, ("'./missing'", "folder")),
        ({"kind": "whisperx", "model": "org/not-cached"}, ("'org/not-cached'", "huggingface-cli download", "may_download")),
        ({"kind": "whisperx", "model": "{models}/whisper_cut_short"}, ("model.bin", "cut short", "fetch it again")),
        ({"kind": "whisperx", "model": "{models}/no_whisper"}, ("CTranslate2", "give")),
        ({**CLASSIFIER, "model": "{models}/of_another_type"}, ("'bert'", "give a checkpoint of one")),
        ({**CLASSIFIER, "model": "{models}/of_the_future"}, ("'wav2vec9'", "install transformers >= 99.1")),
        ({**CLASSIFIER, "model": "{models}/cut_short"}, ("model.safetensors is damaged", "fetch it again")),
    ],
    ids=lambda value: value.get("model", "").rsplit("/", 1)[-1] if isinstance(value, dict) else "",
)
def test_a_model_that_cannot_load_stops_the_build_before_any_audio_is_read(
    part: dict[str, str], said: tuple[str, ...], models: Path, recordings: Path, tmp_path: Path
) -> None:
    part = {**part, "model": part["model"].format(models=models)}
    assert_refused(build(part, recordings, tmp_path), said, tmp_path)


@pytest.mark.parametrize("engine", ["inline", "local", "ray"])
def test_tensors_of_a_wrong_shape_stop_the_build_before_any_audio_is_read(
    engine: str, tiny_ctc: str, recordings: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The files are whole and of the right type: only loading tells."""
    folder = tmp_path_factory.mktemp("misshapen") / "letters"
    shutil.copytree(tiny_ctc, folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :-1].copy()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    done = build({"kind": "hf_asr", "model": str(folder)}, recordings, tmp_path, engine)
    assert_refused(done, ("letters' does not load as", "size mismatch", "another checkpoint"), tmp_path)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_model_that_takes_its_process_down_stops_the_build_too(engine: str, recordings: Path, tmp_path: Path) -> None:
    part = {"kind": "custom", "target": "poison_parts:DeadlyModel", "parameters": {"how": "kill"}}
    done = build(part, recordings, tmp_path, engine)
    assert_refused(done, ("faulty: the process that loaded its model was lost",), tmp_path, exit_code=1)


def test_a_gpu_that_is_not_there_stops_the_build_before_any_audio_is_read(
    tiny_whisper: str, recordings: Path, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    part = {"kind": "whisperx", "model": tiny_whisper, "device": "cuda"}
    assert_refused(build(part, recordings, tmp_path), ("GPU", "device: cpu"), tmp_path)


def build(part: dict[str, Any], recordings: Path, tmp_path: Path, engine: str = "local") -> subprocess.CompletedProcess[str]:
    recipe = {
        "name": "faulty",
        "segmenters": {"vad": {"kind": "silero"}},
        "clip_set": {"turns": None},
        "annotators": {"faulty": part},
    }
    (tmp_path / "faulty.yaml").write_text(json.dumps(recipe))
    verb = ["corpus", "build", str(recordings), "--out", str(tmp_path / "corpus"), "--recipe", str(tmp_path / "faulty.yaml")]
    return subprocess.run(
        [sys.executable, "-m", "stepwell", *verb, "--engine", engine],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def assert_refused(done: subprocess.CompletedProcess[str], said: tuple[str, ...], tmp_path: Path, exit_code: int = 2) -> None:
    assert done.returncode == exit_code
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert all(word in errors[0] for word in said), errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["faulty.yaml"]
