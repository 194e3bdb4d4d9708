from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotators.pyannote_vad import PyannoteVadConfig
from annotators.weights import packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio
from manifests.errors import ModelUnavailable
from manifests.scoring import read_rttm
from tests.annotators.pyannote_folders import segmentation_folder

pytestmark = pytest.mark.slow  # real networks: seconds each


def active(audio: Audio, **config: object) -> np.ndarray:
    """Bool ``[S]``: where it hears speech."""
    found = np.zeros(len(audio), bool)
    for heard in PyannoteVadConfig(**config).build().segment(ChannelAudio(b"", 0, audio)):
        found[slice(*heard.span)] = True
    return found


def test_speech_of_the_shipped_conversation(conversation: Audio) -> None:
    said = np.zeros(len(conversation), bool)
    for turn in read_rttm(packaged_path("pyannote", "audio", "sample", "sample.rttm")):
        said[int(turn.start_s * MODEL_RATE_HZ) : int(turn.end_s * MODEL_RATE_HZ)] = True
    assert (active(conversation) == said).mean() > 0.95


def test_stretches_change_only_what_is_near_their_borders(conversation: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = active(conversation)
    monkeypatch.setattr("annotators.pyannote_vad.STRETCH_SAMPLES", 15 * MODEL_RATE_HZ)
    assert (active(conversation) == whole).mean() > 0.97


def test_thresholds_widen_and_narrow(conversation: Audio) -> None:
    assert active(conversation, onset=0.9, offset=0.85).sum() < active(conversation, onset=0.2, offset=0.1).sum()


def test_a_local_checkpoint_is_the_bundled_one(conversation: Audio, tmp_path: Path) -> None:
    folder = segmentation_folder(tmp_path / "segmentation")
    piece = conversation[: 12 * MODEL_RATE_HZ]
    assert (active(piece, model=str(folder)) == active(piece)).all()
    (model,) = PyannoteVadConfig(model=str(folder)).build().models
    assert (model.name, model.licence) == (str(folder), None)


def test_a_folder_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"has no pytorch_model\.bin"):
        PyannoteVadConfig(model=str(tmp_path)).build().setup()
