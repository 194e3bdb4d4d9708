"""The conversation that ships in pyannote.audio: 30 s, two speakers, 16 kHz."""

from __future__ import annotations

import pytest
import soundfile

from annotators.weights import packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio


@pytest.fixture(scope="session")
def conversation() -> Audio:
    audio, rate = soundfile.read(packaged_path("pyannote", "audio", "sample", "sample.wav"), dtype="float32")
    assert rate == MODEL_RATE_HZ
    return audio
