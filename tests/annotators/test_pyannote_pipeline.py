from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotators.pyannote_pipeline import PyannotePipelineConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan
from manifests.errors import ModelUnavailable
from tests.annotators.pyannote_folders import pipeline_folder

pytestmark = pytest.mark.slow  # real networks: seconds each


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyannote.audio")
    return pipeline_folder(tmp_path_factory.mktemp("pyannote") / "pipeline")


def heard(audio: Audio, **config: Any) -> list[HeardSpan]:
    return PyannotePipelineConfig(**config).build().segment(ChannelAudio(b"", 0, audio))


def test_a_local_pipeline_hears_turns_where_people_speak(folder: Path, conversation: Audio) -> None:
    """Its embedding is untrained, so who speaks means nothing; when somebody does is the segmentation network's word."""
    spans = heard(conversation, model=str(folder))
    labels = {found.speaker_label for found in spans}
    assert labels == {f"speaker_{i}" for i in range(len(labels))}
    active = np.zeros(len(conversation), bool)
    for found in spans:
        active[slice(*found.span)] = True
    assert active[: 6 * MODEL_RATE_HZ].mean() < 0.1, "nobody speaks before 6.69 s"
    assert active[7 * MODEL_RATE_HZ :].mean() > 0.9


def test_stretches_bound_what_is_clustered_at_once(folder: Path, conversation: Audio) -> None:
    part = PyannotePipelineConfig(model=str(folder), stretch_s=30).build()
    part.setup()
    lengths: list[int] = []
    pipeline = part._pipeline
    part._pipeline = lambda file: (lengths.append(file["waveform"].shape[1]), pipeline(file))[1]
    part.segment(ChannelAudio(b"", 0, np.concatenate([conversation, conversation, conversation[:160_000]])))
    assert len(lengths) == 3
    assert max(lengths) - min(lengths) <= 1


def test_facts_and_fingerprint_follow_the_folders_content(folder: Path, tmp_path: Path) -> None:
    part = PyannotePipelineConfig(model=str(folder)).build()
    (model,) = part.models
    assert (model.name, model.licence) == (str(folder), "cc-by-4.0")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert PyannotePipelineConfig(model=str(copy)).build().fingerprint() == part.fingerprint()
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("0.6", "0.7"))
    assert PyannotePipelineConfig(model=str(other)).build().fingerprint() != part.fingerprint()


def test_a_folder_in_the_hubs_cache_is_found_by_its_id(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--pyannote--tiny"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    part = PyannotePipelineConfig(model="pyannote/tiny").build()
    (model,) = part.models
    assert (model.name, model.revision) == ("pyannote/tiny", commit)
    part.setup()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"embedding": "pyannote/wespeaker-voxceleb-resnet34-LM"}, "its embedding is 'pyannote/wespeaker"),
        ({"segmentation": "$model/../elsewhere"}, "its segmentation is"),
        ({"plda": None}, "its plda is None"),
    ],
)
def test_networks_outside_of_the_folder_are_refused(params: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path / "pipeline", **params)
    with pytest.raises(ModelUnavailable, match=message):
        PyannotePipelineConfig(model=str(folder)).build().fingerprint()


def test_other_code_is_never_run(folder: Path, tmp_path: Path) -> None:
    import torch

    copy = shutil.copytree(folder, tmp_path / "copy")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("pyannote.audio.pipelines.SpeakerDiarization", "os.system"))
    with pytest.raises(ModelUnavailable, match=r"is a 'os\.system'; only"):
        PyannotePipelineConfig(model=str(copy)).build().fingerprint()
    shutil.copy(folder / "config.yaml", config)
    torch.save({"state_dict": {}, "path": Path("x")}, copy / "embedding" / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="would run 'pathlib"):
        PyannotePipelineConfig(model=str(copy)).build().fingerprint()


def test_a_missing_pipeline_and_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="is not on this machine; fetch it with"):
        PyannotePipelineConfig().build().fingerprint()
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ModelUnavailable, match=r"has no config\.yaml; give the folder"):
        PyannotePipelineConfig(model=str(tmp_path)).build().fingerprint()
    (tmp_path / "config.yaml").write_text("just a word")
    with pytest.raises(ModelUnavailable, match=r"describes no pyannote\.audio pipeline"):
        PyannotePipelineConfig(model=str(tmp_path)).build().fingerprint()


def test_a_gpu_that_is_not_there_stops_before_audio_is_read(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelUnavailable, match="no CUDA GPU"):
        PyannotePipelineConfig(model=str(folder), device="cuda").build().setup()
