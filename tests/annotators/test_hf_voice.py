"""A VITS voice through the real loading code, on a small checkpoint with random weights: babble, but of the right shape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from annotators.hf_voice import HfVoiceConfig
from manifests.errors import ModelUnavailable, WorkError
from tests.checkpoints.vits import make_tiny_vits

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tiny_vits(tmp_path_factory.mktemp("vits"))


def test_speaks_at_the_checkpoints_rate_and_the_same_bits_again(vits: str) -> None:
    import torch

    voice = HfVoiceConfig(model=vits, language="en", speaker=1).build()
    first = voice.synthesise("hello there")
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = voice.synthesise("hello there")
    assert torch.equal(before, torch.get_rng_state())  # nobody else's noise is touched
    np.testing.assert_array_equal(first.audio, again.audio)
    assert first.sample_rate_hz == 16_000
    assert first.words is None
    assert len(first.audio) > 1000


def test_speakers_and_seeds_are_other_voices(vits: str) -> None:
    said = [
        HfVoiceConfig(model=vits, language="en", **changes).build().synthesise("hello there").audio.tobytes()
        for changes in ({"speaker": 0}, {"speaker": 1}, {"speaker": 0, "seed": 5})
    ]
    assert len(set(said)) == 3


def test_lineage_names_the_weights_and_not_their_place(vits: str, tmp_path: Path) -> None:
    copy = shutil.copytree(vits, tmp_path / "copy")
    voice = HfVoiceConfig(model=vits, language="en", speaker=0).build()
    assert voice.label.startswith(f"vits {vits}@{voice.models[0].digest[:12]}, speaker 0")
    assert voice.fingerprint() == HfVoiceConfig(model=str(copy), language="en", speaker=0).build().fingerprint()
    assert voice.fingerprint() != HfVoiceConfig(model=vits, language="en", speaker=1).build().fingerprint()


def test_what_it_cannot_say_is_refused(vits: str) -> None:
    with pytest.raises(WorkError, match="'123' has no letter that model"):
        HfVoiceConfig(model=vits, language="en").build().synthesise("123")


def test_wrong_checkpoints_are_refused_with_the_remedy(vits: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="has 2 speakers, counted from 0; speaker 2 is none of them"):
        HfVoiceConfig(model=vits, language="en", speaker=2).build().setup()
    with pytest.raises(ModelUnavailable, match="reads romanised text"):
        HfVoiceConfig(model=make_tiny_vits(tmp_path / "uroman", is_uroman=True), language="ko").build().setup()
    other = Path(shutil.copytree(vits, tmp_path / "other"))
    (other / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(ModelUnavailable, match="is of type 'whisper', which is no VITS text-to-speech model"):
        HfVoiceConfig(model=str(other), language="en").build().fingerprint()
    cut = Path(shutil.copytree(vits, tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(ModelUnavailable, match="is damaged"):
        HfVoiceConfig(model=str(cut), language="en").build().setup()
