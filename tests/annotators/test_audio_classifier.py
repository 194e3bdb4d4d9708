from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.audio_classifier import AudioClassifierConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.errors import ModelUnavailable

EVENTS = {"Pure tone": "tone", "White noise": "noise"}


def tone(seconds: float = 1.0) -> Audio:
    return np.float32(0.2 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ))


def noise(seconds: float = 1.0) -> Audio:
    return np.float32(np.random.default_rng(1).normal(0, 0.1, round(seconds * MODEL_RATE_HZ)))


def rows(config: AudioClassifierConfig, *audio: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(audio))], pa.binary(16))
    return config.build().annotate(ClipBatch(pa.table({"clip_id": ids}), audio)).to_pylist()


def events(model: str, **config: Any) -> AudioClassifierConfig:
    return AudioClassifierConfig(dimension="event", model=model, **{"labels": EVENTS, **config})


def copy_of(model: str, tmp_path: Path, **changes: Any) -> str:
    """The checkpoint with keys of its config.json replaced."""
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def test_what_is_heard_is_said_with_its_whole_posterior(tiny_classifier: str) -> None:
    heard = rows(events(tiny_classifier), tone(), noise(), tone(0.6))
    assert [row["value"] for row in heard] == ["tone", "noise", "tone"]
    for row in heard:
        assert [entry["label"] for entry in row["posterior"]] == ["tone", "noise"]
        assert sum(entry["prob"] for entry in row["posterior"]) == pytest.approx(1.0, abs=1e-6)
        assert row["confidence"] == max(entry["prob"] for entry in row["posterior"]) > 0.8
        assert (row["source"], row["age_years"], row["status"]) == (tiny_classifier, None, "ok")


def test_silence_and_a_short_clip_are_abstained_from(tiny_classifier: str) -> None:
    for row in rows(events(tiny_classifier), np.zeros(MODEL_RATE_HZ, np.float32), tone(0.4), np.zeros(0, np.float32)):
        assert (row["status"], row["value"], row["posterior"]) == ("abstained", None, None)


def test_a_long_clip_has_the_mean_posterior_of_its_windows(tiny_classifier: str) -> None:
    config = events(tiny_classifier, max_s=1.0)
    long, first, last = rows(config, np.concatenate([tone(), noise()]), tone(), noise())
    means = [(a["prob"] + b["prob"]) / 2 for a, b in zip(first["posterior"], last["posterior"], strict=True)]
    assert [entry["prob"] for entry in long["posterior"]] == pytest.approx(means, abs=1e-5)
    # Silence is no window; what it would add to the mean is nothing that was heard.
    padded = rows(config, np.concatenate([tone(), np.zeros(MODEL_RATE_HZ, np.float32)]))[0]
    assert padded["posterior"][0]["prob"] == pytest.approx(first["posterior"][0]["prob"], abs=1e-5)


def test_a_value_below_the_threshold_is_null_and_its_posterior_stays(tiny_classifier: str) -> None:
    config = events(tiny_classifier, max_s=1.0, min_confidence=0.8)
    half = rows(config, np.concatenate([tone(), noise()]))[0]
    assert (half["value"], half["status"]) == (None, "ok")
    assert half["confidence"] == max(entry["prob"] for entry in half["posterior"])


def test_a_temperature_flattens_the_posterior(tiny_classifier: str) -> None:
    sure, flat = (rows(events(tiny_classifier, temperature=t), tone())[0]["posterior"] for t in (1.0, 4.0))
    odds = [np.log(one[0]["prob"] / one[1]["prob"]) for one in (sure, flat)]
    assert odds[0] == pytest.approx(4.0 * odds[1], rel=1e-3)


def test_labels_without_a_mapping_go_to_other(tiny_classifier: str) -> None:
    sings = AudioClassifierConfig(dimension="vocal_activity", model=tiny_classifier, labels={"Pure tone": "singing"})
    sung, other = rows(sings, tone(), noise())
    assert (sung["value"], other["value"]) == ("singing", "other")
    # Gender has no such label: nothing is said.
    male = AudioClassifierConfig(dimension="gender", model=tiny_classifier, labels={"Pure tone": "male"})
    said, unsaid = rows(male, tone(), noise())
    assert (said["value"], unsaid["value"], unsaid["status"]) == ("male", None, "ok")
    assert [entry["label"] for entry in unsaid["posterior"]] == ["male", "other"]


def test_two_labels_that_are_one_to_us(tiny_classifier: str) -> None:
    both = {"Pure tone": "sound", "White noise": "sound"}
    assert rows(events(tiny_classifier, labels=both), tone())[0]["confidence"] == pytest.approx(1.0)
    one_by_one = events(tiny_classifier, multi_label=True, min_confidence=0.5)
    together = events(tiny_classifier, multi_label=True, min_confidence=0.5, labels=both)
    apart = [entry["prob"] for entry in rows(one_by_one, tone())[0]["posterior"]]
    assert rows(together, tone())[0]["confidence"] == pytest.approx(max(apart))


def test_the_expected_age(tiny_classifier: str) -> None:
    labels, years = {"Pure tone": "child", "White noise": "adult"}, {"Pure tone": 8.0, "White noise": 40.0}
    config = AudioClassifierConfig(dimension="age", model=tiny_classifier, labels=labels, label_years=years)
    row = rows(config, tone())[0]
    assert row["age_years"] == pytest.approx(
        sum(e["prob"] * y for e, y in zip(row["posterior"], years.values(), strict=True)), abs=1e-4
    )


def test_the_model_is_described(tiny_classifier: str, tmp_path: Path) -> None:
    folder = copy_of(tiny_classifier, tmp_path)
    (Path(folder) / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (fact,) = events(folder).build().models
    assert (fact.name, fact.licence) == (folder, "apache-2.0")
    assert events(folder).build().fingerprint() != events(tiny_classifier).build().fingerprint()


def test_a_pickle_is_left_unread_beside_safetensors_and_read_as_weights_without_them(
    tiny_classifier: str, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = Path(copy_of(tiny_classifier, tmp_path))
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert rows(events(str(folder)), tone())[0]["value"] == "tone"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert rows(events(str(folder)), noise())[0]["value"] == "noise"


def made(kind: str, folder: str) -> str:
    """A checkpoint of another architecture with random weights: its loading and front end are real, its answers mean nothing."""
    import torch
    import transformers as hf

    labels = {"id2label": {0: "Pure tone", 1: "White noise"}, "label2id": {"Pure tone": 0, "White noise": 1}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "ast":
            sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            network = hf.ASTForAudioClassification(hf.ASTConfig(**sizes, **labels))
            features = hf.ASTFeatureExtractor()
        else:
            sizes = {
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "classifier_proj_size": 16,
            }
            network = hf.WhisperForAudioClassification(hf.WhisperConfig(**sizes, **labels))
            features = hf.WhisperFeatureExtractor(feature_size=80)
    network.save_pretrained(folder)
    features.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["ast", "whisper"])
def test_other_architectures_load_and_hear_clips_of_any_length_together(kind: str, tmp_path: Path) -> None:
    config = events(made(kind, str(tmp_path / kind)))
    together = rows(config, tone(1.0), noise(0.7), tone(2.3))
    alone = [rows(config, audio)[0] for audio in (tone(1.0), noise(0.7), tone(2.3))]
    for one, other in zip(together, alone, strict=True):
        probs = [entry["prob"] for entry in one["posterior"]]
        assert sum(probs) == pytest.approx(1.0, abs=1e-6)
        assert probs == pytest.approx([entry["prob"] for entry in other["posterior"]], abs=1e-5)
    assert together[0]["posterior"] != together[1]["posterior"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "bert"}, "is of type 'bert', which is no audio classifier"),
        ({"architectures": ["Wav2Vec2ForCTC"]}, "was saved as Wav2Vec2ForCTC, which is no audio classifier"),
        ({"id2label": {"0": "ang", "1": "hap"}}, "has no label 'Pure tone'; it has ang, hap"),
    ],
)
def test_a_model_of_the_wrong_kind_is_refused_before_audio(
    changes: dict[str, Any], says: str, tiny_classifier: str, tmp_path: Path
) -> None:
    part = events(copy_of(tiny_classifier, tmp_path, **changes)).build()
    with pytest.raises(ModelUnavailable, match=says):
        part.fingerprint()


def test_labels_that_are_none_of_the_dimension_need_a_mapping(tiny_classifier: str) -> None:
    part = AudioClassifierConfig(dimension="emotion", model=tiny_classifier).build()
    with pytest.raises(ModelUnavailable, match=r"has the label 'Pure tone'; labels of emotion are angry, .*: say with `labels`"):
        part.fingerprint()
    assert rows(AudioClassifierConfig(dimension="event", model=tiny_classifier), tone())[0]["value"] == "pure_tone"


def test_a_network_without_its_head_or_of_another_rate_is_refused(tiny_classifier: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(tiny_classifier, tmp_path)
    weights = load_file(f"{folder}/model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if not k.startswith("classifier")}, f"{folder}/model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelUnavailable, match=r"lacks the weights 'classifier\.bias'"):
        events(folder).build().setup()
    save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
    heard = Path(folder) / "preprocessor_config.json"
    heard.write_text(heard.read_text().replace("16000", "44100"))
    with pytest.raises(ModelUnavailable, match="hears audio at 44100 Hz"):
        events(folder).build().setup()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"dimension": "emotion", "labels": {"x": "angree"}}, "'angree' is no label of emotion"),
        ({"dimension": "event", "multi_label": True}, "multi_label needs min_confidence"),
        ({"dimension": "gender", "label_years": {"x": 3.0}}, "label_years is for the dimension age"),
        ({"dimension": "event", "max_s": 0.2}, "must not be below min_s"),
        ({"dimension": "mood"}, "Input should be 'gender'"),
    ],
)
def test_a_config_that_cannot_be_meant(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AudioClassifierConfig(model="m", **config)
