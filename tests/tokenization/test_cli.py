from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from manifests.errors import MismatchError, RequestError
from tokenization.cli import app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def trained(corpus_uri: str, tmp_path: Path, recipe_text: str) -> dict[str, Any]:
    (tmp_path / "recipe.yaml").write_text(recipe_text)
    out = run("train", corpus_uri, "--out", str(tmp_path / "t"), "--recipe", str(tmp_path / "recipe.yaml"), "--json")
    found: dict[str, Any] = json.loads(out)
    return found


def test_train_check_and_decode(trained: dict[str, Any], tmp_path: Path) -> None:
    assert trained["metrics"]["mel_error_ratio"] > 0
    assert json.loads(run("check", trained["tokenizer_uri"], "--json"))["tokenizer_id"] == trained["tokenizer_id"]
    assert "files fit the head" in run("check", trained["tokenizer_uri"])
    np.save(tmp_path / "codes.npy", np.arange(50, dtype=np.uint16))
    wav = str(tmp_path / "out.wav")
    answer = json.loads(run("decode", trained["tokenizer_uri"], str(tmp_path / "codes.npy"), "--out", wav, "--json"))
    assert answer == {"out": wav, "num_codes": 50, "audio_s": 2.0, "sample_rate_hz": 16_000}
    audio, rate = soundfile.read(wav)
    assert (len(audio), rate) == (32_000, 16_000)


def test_decode_refuses_what_are_no_codes(trained: dict[str, Any], tmp_path: Path) -> None:
    codes, wav = tmp_path / "codes.npy", tmp_path / "out.wav"
    for values, message in [
        (np.array([6561]), r"codes are 0\.\.6560"),
        (np.array([-1]), "whole numbers from 0"),
        (np.array([0.5]), "whole numbers from 0"),
        (np.zeros((2, 2), int), "whole numbers from 0"),
    ]:
        np.save(codes, values)
        with pytest.raises(RequestError, match=message):
            run("decode", trained["tokenizer_uri"], str(codes), "--out", str(wav))
    codes.write_text("text")
    with pytest.raises(RequestError, match="cannot be read"):
        run("decode", trained["tokenizer_uri"], str(codes), "--out", str(wav))
    assert not wav.exists()
    np.save(codes, np.array([1, 2]))
    with pytest.raises(RequestError, match="choose another --out"):
        run("decode", trained["tokenizer_uri"], str(codes), "--out", str(tmp_path / "none" / "out.wav"))


def test_check_of_an_exchanged_file_fails(trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "t" / "codec.json").write_text('{"num_mels":40,"width":16,"encoder_blocks":1,"decoder_blocks":2}')
    with pytest.raises(MismatchError, match="codec files have fingerprint"):
        run("check", trained["tokenizer_uri"])


def test_every_verb_has_help_with_an_example() -> None:
    for verb in ("train", "decode", "check"):
        assert f"stepwell tokenizer {verb}" in run(verb, "--help")


def test_the_verbs_are_light_to_import() -> None:
    code = (
        "import sys, tokenization.cli, tokenization.recipe, tokenization.codes, tokenization.build, tokenization.check;"
        "heavy = {'torch', 'ray', 'tokenizers', 's3tokenizer', 'transformers'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
