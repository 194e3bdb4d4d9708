"""The benchmark on real speech holds together: recipes, the plain classifier, the tables, and the chain of verbs at the smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speech.__main__ import Results, curve_lines, heart_lines, result_lines, speaker_lines
from benchmarks.speech.chain import RECIPES, Chain, Listener, read_manifest
from benchmarks.speech.classifier import classify
from training import checkpoint
from training.recipe import load_training_recipe


@pytest.mark.parametrize("name", ["digits", "read", "overfit"])
def test_recipes_decode_and_mask_audio_ids_in_all_stages(name: str) -> None:
    stages = load_training_recipe(str(RECIPES / f"{name}.yaml")).stages
    assert all(stage.kind == "ctc" or stage.vocabulary == "text" for stage in stages)


def test_the_plain_classifier_learns_and_hears_more_than_the_level() -> None:
    random = np.random.default_rng(0)

    def tone(hz: float) -> np.ndarray:
        seconds = np.arange(8000) / 16000
        return (random.uniform(0.1, 0.9) * np.sin(2 * np.pi * hz * seconds) + 0.01 * random.standard_normal(8000)).astype(
            np.float32
        )

    words = ["low", "high"] * 24
    clips = [tone(300 if word == "low" else 2000) for word in words]
    told = ["high", "low", "low", "high"] * 3
    found = classify(clips, words, [tone(300 if word == "low" else 2000) for word in told], epochs=6)
    assert found == told


def test_speakers_are_compared_clip_by_clip_and_then_as_wholes() -> None:
    rights = {"a": [(True, False)] * 30 + [(True, True)] * 30, "b": [(False, True)] * 15 + [(True, True)] * 45}
    lines = "\n".join(speaker_lines(rights, 12))
    assert "| a: model | 100.0 %" in lines
    assert "| a: model − classifier | 50.0 %" in lines
    assert "| b: model − classifier | -25.0 %" in lines
    assert "| mean: model − classifier | 12.5 % | – | 2 speakers |" in lines
    assert "the classifier from the audio as it is" in lines
    assert "chosen by looking at fsdd-george and fsdd-lucas" in lines
    assert "12 s of CPU" in lines


def test_curves_and_errors_are_told() -> None:
    rows = [{"stage": "align", "step": 50, "train": 1.25, "others": 2.5}]
    assert "| align | 50 | 1.250 | 2.500 |" in curve_lines(rows, 3)
    found = {"substitutions": 1, "deletions": 0, "insertions": 1, "num_words": 99, "wrong": [{"said": "A B", "written": "A C D"}]}
    assert "2 of 99 words wrong" in heart_lines(found, 3)[0]
    assert heart_lines(found, 3)[1] == "- 'A B' became 'A C D'"


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    assert Results(tmp_path / "results.json").measure("part", lambda: [1, 2]) == [1, 2]
    again = Results(tmp_path / "results.json")
    assert again.measure("part", lambda: pytest.fail("measured again")) == [1, 2]
    assert again.cpu_s("part") >= 0


def test_parts_of_former_calls_stay_in_the_report(tmp_path: Path) -> None:
    row = {"stage": "align", "step": 50, "train": 1.25, "others": 2.5}
    Results(tmp_path / "results.json").measure("curves", lambda: [row])
    again = Results(tmp_path / "results.json")
    for speaker in "ba":
        again.measure(f"speakers {speaker}", lambda: [[True, False], [True, True]])
    text = "\n".join(result_lines(again))
    assert "| align | 50 |" in text
    assert text.index("| a: model |") < text.index("| b: model |")
    assert "by heart" not in text


@pytest.mark.slow
def test_the_chain_of_verbs_ends_in_a_model_that_listens(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = read_manifest(shared / "speech", "read")[:10]
    chain = Chain(tmp_path / "chain", "read")
    stages = [stage.model_dump(mode="json") | {"steps": 2, "warmup_steps": 0} for stage in chain.recipe.stages]
    small = tmp_path / "recipes" / "read.yaml"
    small.parent.mkdir()
    for name in ("pack", "tokenizer"):
        (small.parent / f"{name}.yaml").write_text((RECIPES / f"{name}.yaml").read_text())
    told = chain.recipe.model_dump(mode="json") | {"model": "micro", "checkpoint_every": 1, "stages": stages}
    small.write_text(json.dumps(told))
    monkeypatch.setattr("benchmarks.speech.chain.RECIPES", small.parent)
    chain = Chain(tmp_path / "chain", "read")
    chain.prepare(train=spoken[:7], others=spoken[7:])
    chain.train()
    names = checkpoint.complete(str(chain.run))
    assert len(names) == 2 * len(stages)
    first, last = Listener(chain, names[0]), Listener(chain)
    assert [entry.text for entry, _ in last.documents("others")] != [entry.text for entry, _ in last.documents("train", 3)]
    assert len(last.transcribe("others")) == 3
    assert first.ctc_loss("train", 3) != last.ctc_loss("train", 3)
    assert 3.0 < last.asr_loss("others", 3) < 9.0  # two steps: about the logarithm of the vocabulary's size
