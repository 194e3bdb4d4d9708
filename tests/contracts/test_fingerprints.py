"""What a fingerprint covers, over every part of the catalog: each field that says what is heard, and none that says where."""

from __future__ import annotations

import shutil
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from annotators.audio_classifier import AudioClassifierConfig
from annotators.catalog import AnnotatorConfig, SegmenterConfig, VoiceConfig
from annotators.checkpoints import WHERE
from annotators.consensus import ConsensusConfig
from annotators.fitted_classifier import FittedClassifierConfig
from annotators.hf_asr import HfAsrConfig
from annotators.hf_voice import HfVoiceConfig
from annotators.pyannote_pipeline import PyannotePipelineConfig
from annotators.pyannote_vad import PyannoteVadConfig
from annotators.whisperx_asr import WhisperxConfig
from tests.annotators.pyannote_folders import pipeline_folder, segmentation_folder
from tests.checkpoints.vits import make_tiny_vits
from tests.contracts.test_annotators import fitted_classifier as fitted_classifier  # a fixture

# Where a field's other value cannot be made from the one that it has: (kind, field) -> what to change.
OTHER_VALUES: dict[tuple[str, str], dict[str, Any]] = {
    ("audio_classifier", "dimension"): {"dimension": "scenario"},
    ("audio_classifier", "labels"): {"labels": {}},
    ("audio_classifier", "label_years"): {"dimension": "age", "labels": {}, "label_years": {"White noise": 3.0}},
    ("audio_classifier", "min_confidence"): {"min_confidence": 0.5},
    ("audio_classifier", "multi_label"): {"multi_label": True, "min_confidence": 0.5},
    ("consensus", "layers"): {"layers": ("asr", "asr_b")},
    ("diarization", "clustering_method"): {"clustering_method": "average"},
    ("espeak", "variant"): {"variant": "f2"},
    ("fitted_classifier", "layers"): {"layers": {"spectrum": "spectrum_b"}},
    ("hf_asr", "dtype"): {"dtype": "float16", "device": "cuda"},
    ("hf_asr", "language"): {"language": "de"},
    ("hf_tts", "speaker"): {"speaker": 1},
    ("paralinguistics", "asr"): {"asr": "asr"},
    ("paralinguistics", "sound_gate"): {"sound_gate": "sound_gate"},
    ("paralinguistics", "classifiers"): {"classifiers": {"gender": ["gender"]}},
    ("paralinguistics", "speeds"): {"speeds": {}},
    ("whisperx", "language"): {"language": "de"},
}
ELSEWHERE = {"device": "cuda", "batch_size": 99, "may_download": True, "revision": "0" * 40}


def variants(union: Any) -> list[type[BaseModel]]:
    return [config for config in typing.get_args(typing.get_args(union)[0]) if config.model_fields["kind"].default != "custom"]


ALL = [*variants(SegmenterConfig), *variants(AnnotatorConfig), *variants(VoiceConfig)]


@pytest.fixture(scope="module")
def checkpoints(
    tiny_whisper: str,
    tiny_whisper_checkpoint: str,
    tiny_classifier: str,
    tiny_ctc: str,
    fitted_classifier: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, BaseModel]:
    """A config of each kind that cannot be built without a checkpoint, or has one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "whisperx": WhisperxConfig(model=tiny_whisper, align_models={"en": tiny_ctc}),
        "hf_asr": HfAsrConfig(model=tiny_whisper_checkpoint),
        "audio_classifier": AudioClassifierConfig(dimension="event", model=tiny_classifier),
        "fitted_classifier": FittedClassifierConfig(model=fitted_classifier),
        "consensus": ConsensusConfig(layers=("asr", "asr_b", "asr_c")),
        "hf_tts": HfVoiceConfig(model=make_tiny_vits(folder / "vits"), language="en"),
        "pyannote_pipeline": PyannotePipelineConfig(model=str(pipeline_folder(folder / "pipeline"))),
        "pyannote_vad": PyannoteVadConfig(model=str(segmentation_folder(folder / "vad"))),
    }


def changed(config: BaseModel, **changes: Any) -> Any:
    return type(config).model_validate(config.model_dump() | changes)


def other_value(config: BaseModel, name: str) -> dict[str, Any]:
    kind, value = str(config.kind), getattr(config, name)  # type: ignore[attr-defined]
    if (kind, name) in OTHER_VALUES:
        return OTHER_VALUES[kind, name]
    annotation = type(config).model_fields[name].annotation
    if typing.get_origin(annotation) is Literal:
        return {name: next(option for option in typing.get_args(annotation) if option != value)}
    if isinstance(value, tuple):
        return {name: value[:-1]}
    if isinstance(value, bool):
        return {name: not value}
    if isinstance(value, str):
        return {name: f"{value}b"}
    assert isinstance(value, (int, float)), f"{kind}.{name} = {value!r} needs an entry in OTHER_VALUES"
    return {name: value + 1 if isinstance(value, int) else 0.95 * value or 0.01}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.model_fields["kind"].default))
def test_every_field_counts_but_where_it_runs(kind: type[BaseModel], checkpoints: dict[str, BaseModel], tmp_path: Path) -> None:
    name = kind.model_fields["kind"].default
    config: Any = checkpoints.get(name) or kind()
    original = config.build().fingerprint()
    runs_a_checkpoint = name in checkpoints and "model" in kind.model_fields
    for field in sorted(set(kind.model_fields) - {"kind", "when", "model", "align_models"}):
        if runs_a_checkpoint and field in WHERE:
            assert changed(config, **{field: ELSEWHERE[field]}).build().fingerprint() == original, field
        else:
            assert changed(config, **other_value(config, field)).build().fingerprint() != original, field
    if runs_a_checkpoint:
        moved = shutil.copytree(config.model, tmp_path / "moved")
        assert changed(config, model=str(moved)).build().fingerprint() == original
        (moved / "added.txt").write_text("another file, other contents")
        assert changed(config, model=str(moved)).build().fingerprint() != original


def test_aligners_count_by_their_weights(checkpoints: dict[str, BaseModel], tiny_ctc: str, tmp_path: Path) -> None:
    config = checkpoints["whisperx"]
    original, moved = changed(config).build().fingerprint(), str(shutil.copytree(tiny_ctc, tmp_path / "moved"))
    assert changed(config, align_models={"en": moved}).build().fingerprint() == original
    assert changed(config, align_models={"de": moved}).build().fingerprint() != original
    assert changed(config, align_models={}).build().fingerprint() != original
