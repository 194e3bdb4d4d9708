"""Every synthesiser against the contract."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from annotators.espeak_voice import EspeakConfig
from annotators.hf_voice import HfVoiceConfig
from manifests.contracts import SynthesisedSpeech, Synthesiser
from tests.checkpoints.vits import make_tiny_vits

TEXTS = ("hello there", "a", "one two, three. four")


@pytest.fixture(scope="module", params=["espeak", "hf_tts"])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Synthesiser]:
    if request.param == "espeak":
        pytest.importorskip("espeakng_loader")
        return EspeakConfig(variant="f2").build
    pytest.importorskip("transformers")
    return HfVoiceConfig(model=make_tiny_vits(tmp_path_factory.mktemp("vits")), language="en", speaker=0).build


def test_speech_is_as_declared(build: Callable[[], Synthesiser]) -> None:
    voice = build()
    assert isinstance(voice, Synthesiser)
    assert len(voice.language) in (2, 3)
    assert voice.label
    assert "\n" not in voice.label
    assert all(model.digest for model in voice.models)
    for text in TEXTS:
        speech = voice.synthesise(text)
        assert isinstance(speech, SynthesisedSpeech)
        assert speech.audio.dtype == np.float32
        assert speech.audio.ndim == 1
        assert len(speech.audio)
        assert np.isfinite(speech.audio).all()
        assert np.abs(speech.audio).max() <= 1.0
        for word in speech.words or ():
            assert 0 <= word.start_sample < word.end_sample <= len(speech.audio)


def test_equal_bits_in_any_order_and_after_pickling(build: Callable[[], Synthesiser]) -> None:
    voice = build()
    forward = [voice.synthesise(text).audio.tobytes() for text in TEXTS]
    copy = pickle.loads(pickle.dumps(build()))
    backward = [copy.synthesise(text).audio.tobytes() for text in reversed(TEXTS)]
    assert forward == backward[::-1]
    assert copy.fingerprint() == voice.fingerprint()


def test_the_pickle_of_a_new_voice_is_light(build: Callable[[], Synthesiser], tmp_path: Path) -> None:
    assert len(pickle.dumps(build())) < 4000
