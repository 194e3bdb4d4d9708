from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from annotators.fitted_classifier import FittedClassifierConfig
from annotators.linear_classifier import CARD, WEIGHTS
from annotators.spectrum import Spectrum, SpectrumConfig
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.corpus import Corpus
from manifests.errors import ModelUnavailable, RequestError, WorkError
from pipeline.build import annotate, build
from pipeline.fit_classifier import FitResult, fit_classifier
from pipeline.recipe import BuildRecipe
from pipeline.sources import ColumnMap

NUM_VOICES = 8


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, conversation: Audio, light: Callable[..., BuildRecipe]) -> Path:
    """Folder with a corpus of speech and of the same speech 1.6 times as fast and high, and its labels: adult and child."""
    folder = tmp_path_factory.mktemp("labelled")
    size, rows = 24_000, []
    raised = resample(conversation, round(MODEL_RATE_HZ * 1.6), MODEL_RATE_HZ)
    for label, years, audio in (("adult", 30, conversation), ("child", 9, raised)):
        for i, start in enumerate(np.linspace(16_000, len(audio) - size, 40).astype(int)):
            name = f"{label}{i:02d}.flac"
            soundfile.write(folder / name, audio[start : start + size], MODEL_RATE_HZ)
            row = {"path": name, "licence": "CC0-1.0", "speaker_label": f"{label[0]}{i // 5}", "age": label, "years": years}
            rows.append(row)
    _write(folder / "labels.jsonl", rows)
    recipe = light(units={"max_inputs": 100}, annotators={"prosody": {"kind": "prosody"}, "spectrum": {"kind": "spectrum"}})
    columns = ColumnMap(licence="licence", speaker_label="speaker_label")
    build([str(folder / "labels.jsonl")], str(folder / "corpus"), recipe, columns=columns)
    return folder


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fitted(labelled: Path, out: Path, **options: Any) -> FitResult:
    given = {"features": ["prosody", "spectrum"], "label_key": "age", "precision": 0.8, **options}
    return fit_classifier(str(labelled / "corpus"), str(labelled / "labels.jsonl"), "age", out=str(out), **given)


@pytest.fixture(scope="module")
def classifier(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fitted") / "age"
    fitted(labelled, folder)
    return str(folder)


def test_the_classifier_knows_the_labels_and_becomes_a_layer(classifier: str, labelled: Path) -> None:
    uri = str(labelled / "corpus")
    annotate(uri, {"age": FittedClassifierConfig(model=classifier)})
    corpus = Corpus.open(uri)
    inputs = {row["recording_id"]: row["uri"] for row in corpus.inputs().to_pylist()}
    said = [
        (row["value"], "child" if "child" in inputs[clip] else "adult")
        for row, clip in zip(corpus.layer("age").to_pylist(), corpus.clips()["recording_id"].to_pylist(), strict=True)
        if row["value"]
    ]
    assert len(said) > 40
    assert np.mean([value == label for value, label in said]) > 0.9
    part = corpus.part(f"layers/{corpus.clip_set}/age")
    assert part is not None
    assert [model.licence for model in part.models] == ["CC0-1.0"]


def test_the_folder_says_how_it_was_fitted(classifier: str, labelled: Path) -> None:
    card = json.loads((Path(classifier) / CARD).read_text())
    corpus = Corpus.open(str(labelled / "corpus"))
    assert sorted(path.name for path in Path(classifier).iterdir()) == [CARD, WEIGHTS]
    assert card["layers"]["spectrum"] == {
        "fingerprint": corpus.layers()["spectrum"],
        "part": "spectrum",
        "version": Spectrum.version,
        "models": [],
    }
    assert [feature["column"] for feature in card["features"]][-1] == "spectrum"
    assert (card["labels"], card["licence"], card["asked_precision"]) == (["adult", "child"], "CC0-1.0", 0.8)
    held_out = card["held_out"]
    assert 10 < held_out["num_groups"] <= 2 * NUM_VOICES
    assert held_out["labels"]["child"]["num_items"] >= 30
    assert held_out["precision"] >= 0.8
    assert held_out["mean_age_error_years"] is None


def test_ages_in_years_give_labels_and_an_expected_age(labelled: Path, tmp_path: Path) -> None:
    result = fitted(labelled, tmp_path / "years", label_key="years")
    assert result.held_out.mean_age_error_years is not None
    assert result.held_out.mean_age_error_years < 8.0
    card = json.loads((tmp_path / "years" / CARD).read_text())
    assert (card["labels"], card["label_years"]) == (["adult", "child"], {"adult": 30.0, "child": 9.0})


def test_the_same_request_writes_the_same_bytes(classifier: str, labelled: Path, tmp_path: Path) -> None:
    fitted(labelled, tmp_path / "again")
    for name in (CARD, WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (Path(classifier) / name).read_bytes()


def test_what_cannot_be_fitted_is_said_with_the_remedy_and_leaves_nothing(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, says in (
        (
            {"features": ["spectrumm"]},
            r"layer 'spectrumm' is not in corpus .* has .*spectrum.*: mend the name, or add .* --layer NAME",
        ),
        ({"features": ["spectrum.loudness"]}, r"'spectrum\.loudness' is no column of numbers or vectors; spectrum has"),
        ({"label_key": "mood"}, r"no row has 'mood'; name the key"),
        ({"label_key": "path"}, r"line 1: 'adult00\.flac' is no label; labels of age are child, teen, adult, elderly, or years"),
        ({"group": "accent"}, r"line 1: no 'accent' there and none with the input"),
        ({"fewest_items": 500}, r"at least 500 are needed"),
    ):
        with pytest.raises(RequestError, match=says):
            fitted(labelled, out, **options)
    with pytest.raises(WorkError, match=r"precision 0\.999 is not reached at any confidence"):
        fitted(labelled, out, precision=0.999)
    assert not out.exists()


def test_labels_that_do_not_go_with_the_corpus(labelled: Path, tmp_path: Path) -> None:
    def twice(*rows: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"path": str(labelled / "adult00.flac"), **row} for row in rows]

    for rows, says in (
        ([{"uri": "x.flac", "label": "child"}], r"x\.flac' is no input of the corpus"),
        ([{"label": "child"}], r"line 1 names nothing"),
        ([{"recording_id": "xyz", "label": "child"}], r"line 1: recording_id 'xyz' is not hex"),
        (twice({"label": "child"}, {"label": "adult"}), r"line 2: label 'adult' of a recording that .* line 1 gives 'child'"),
        (twice({"label": 31}, {"label": 34}), r"line 2: age in years 34\.0 of a recording that .* gives 31\.0"),
        (
            twice({"label": 31, "speaker": "a"}, {"label": 31, "speaker": "b"}),
            r"line 2: speaker 'b' of a recording that .* gives 'a'",
        ),
        (twice({"label": 31}, {"label": 31, "licence": "CC-BY-4.0"}), r"line 2: licence 'CC-BY-4\.0' of .* gives None"),
    ):
        _write(tmp_path / "labels.jsonl", rows)
        with pytest.raises(RequestError, match=says):
            fit_classifier(str(labelled / "corpus"), str(tmp_path / "labels.jsonl"), "age", ["spectrum"], str(tmp_path / "out"))


def test_a_classifier_is_not_written_over(classifier: str, labelled: Path) -> None:
    with pytest.raises(RequestError, match="never written over"):
        fitted(labelled, Path(classifier))


@pytest.mark.parametrize("damage", ["no card", "other card", "no weights", "other weights"])
def test_a_damaged_classifier_stops_before_audio(damage: str, classifier: str, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(classifier, folder)
    if damage == "no card":
        (folder / CARD).unlink()
    elif damage == "other card":
        (folder / CARD).write_text("{}")
    elif damage == "no weights":
        (folder / WEIGHTS).unlink()
    else:
        save_file({**load_file(folder / WEIGHTS), "bias": np.zeros(3)}, folder / WEIGHTS)
    part = FittedClassifierConfig(model=str(folder)).build()
    with pytest.raises(ModelUnavailable, match=r"fit it again|fit-classifier"):
        part.fingerprint()


def test_layers_may_have_other_names_and_must_be_those_it_was_fitted_on(classifier: str, labelled: Path) -> None:
    uri = str(labelled / "corpus")
    config = FittedClassifierConfig(model=classifier, layers={"spectrum": "spectrum_b"})
    assert config.build().reads == ("prosody", "spectrum_b")
    with pytest.raises(
        RequestError, match=r"layer 'age_b' was fitted on layer 'spectrum_b' with fingerprint \w+; here it is \w+: make it"
    ):
        annotate(uri, {"spectrum_b": SpectrumConfig(min_active_s=1.0), "age_b": config})
    annotate(uri, {"spectrum_b": SpectrumConfig(), "age_b": config})
    assert "ok" in Corpus.open(uri).layer("age_b")["status"].to_pylist()


def test_the_verb(labelled: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipeline.cli import app

    options = ["--labels", str(labelled / "labels.jsonl"), "--dimension", "age", "--label", "age", "--features", "spectrum"]
    options += ["--precision", "0.8", "--out", str(tmp_path / "age"), "--json"]
    done = CliRunner().invoke(app, ["fit-classifier", str(labelled / "corpus"), *options], catch_exceptions=False)
    assert json.loads(done.stdout)["held_out"]["precision"] >= 0.8
    with pytest.raises(RequestError, match="dimension 'mood' is not one of gender, age"):
        CliRunner().invoke(
            app, ["fit-classifier", "c", "--labels", "l", "--dimension", "mood", "--out", "o"], catch_exceptions=False
        )
