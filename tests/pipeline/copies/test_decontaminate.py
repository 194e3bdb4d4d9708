from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotators.content import ContentConfig
from benchmarks.quality.copies import encoded
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.recipes import load_recipe
from pipeline.build import build
from pipeline.copies.contamination_proof import Proof, check, read_proof
from pipeline.copies.decontaminate import decontaminate
from pipeline.copies.recipe import DecontaminateConfig
from pipeline.recipe import BuildRecipe
from pipeline.rights.matching import Rule
from pipeline.rights.takedown import take_down
from tests.pipeline.copies.conftest import RATE_HZ, TEXTS, speak

OTHER = "Twelve penguins marched past the research station and ignored the camera entirely this time around."
CONFIG = DecontaminateConfig()


def write_registry(folder: Path) -> Path:
    """Three sets: one with audio of the corpus (as MP3), one with a text of it said by nobody there, one of neither."""
    (folder / "asr.mp3").write_bytes(encoded(speak(TEXTS[7]), RATE_HZ, "libmp3lame", "mp3", 64_000))
    soundfile.write(folder / "tts.wav", speak(TEXTS[9], "f5", 150), RATE_HZ)
    soundfile.write(folder / "clean.wav", speak(OTHER, "m1", 150), RATE_HZ)
    rows = [
        {"path": "asr.mp3", "text": OTHER[:40], "language": "en", "source": "asr-test"},
        {"path": "tts.wav", "text": TEXTS[9].upper(), "language": "en", "source": "tts-test"},
        {"path": "clean.wav", "text": OTHER, "language": "en", "source": "clean-test"},
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    out = str(folder / "registry")
    build([str(write_registry(folder))], out, load_recipe(BuildRecipe, "pipeline", "registry"))
    return out


@pytest.fixture(scope="module")
def decontaminated(corpus, registry, tmp_path_factory):
    uri = shutil.copytree(corpus, str(tmp_path_factory.mktemp("decontaminated") / "corpus"))
    return uri, decontaminate(uri, [registry], CONFIG)


def found(uri, names):
    rows = Corpus.open(uri).decisions("contamination", "clips").to_pylist()
    return {name: row for name, row in zip(names(uri), rows, strict=True) if row["drop_reason"]}


def test_what_an_evaluation_set_holds_is_found_and_nothing_else(decontaminated, names):
    uri, result = decontaminated
    rows = found(uri, names)
    reasons = {name: (row["drop_reason"], row["evaluation_set"]) for name, row in rows.items()}
    # The text of the first set is another one's beginning; the second set's is said by both voices, but by neither as there.
    assert reasons == {
        "adam-7": ("contaminated_audio", "asr-test"),
        "adam-9": ("contaminated_text", "tts-test"),
        "beth-9": ("contaminated_text", "tts-test"),
    }
    audio, text = rows["adam-7"], rows["adam-9"]
    assert audio["overlap_s"] > 2
    assert audio["bit_error_rate"] < 0.1
    assert audio["end_sample"] - audio["start_sample"] == pytest.approx(audio["overlap_s"] * RATE_HZ, abs=2)
    assert text["ngram_share"] == 1.0
    assert text["start_sample"] is None
    assert result.contaminated == {"asr-test": {"contaminated_audio": 1}, "tts-test": {"contaminated_text": 2}}
    assert result.registries[0].clips == {"asr-test": 1, "clean-test": 1, "tts-test": 1}


def test_a_part_of_an_evaluation_file_in_a_long_recording_is_found(registry, recipe, tmp_path, names):
    before, after = speak(TEXTS[0], "f4", 140), speak(TEXTS[1], "f4", 140)
    heard_S = speak(TEXTS[7])[8000:-8000]
    soundfile.write(tmp_path / "long.wav", np.concatenate([before, heard_S, after]), RATE_HZ)
    uri = str(tmp_path / "corpus")
    build([str(tmp_path / "long.wav")], uri, recipe)
    decontaminate(uri, [registry], DecontaminateConfig(by=("near",)))
    (row,) = found(uri, names).values()
    assert row["start_sample"] == pytest.approx(len(before), abs=RATE_HZ)
    assert row["registry_start_s"] == pytest.approx(0.5, abs=0.8)


def test_again_there_is_nothing_to_do(decontaminated, registry):
    uri, result = decontaminated
    again = decontaminate(uri, [registry], CONFIG)
    assert not again.is_new
    assert (again.contaminated, again.table_digest) == (result.contaminated, result.table_digest)


def test_a_proof_holds_until_something_changes(decontaminated, registry, recipe, planted, tmp_path):
    uri, result = decontaminated
    uri = shutil.copytree(uri, str(tmp_path / "corpus"))
    path = tmp_path / "proof.json"
    path.write_bytes(Proof.of(result, CONFIG).to_json())
    assert check(str(path), uri) == []
    build([str(planted.folder / "ad.mp3")], uri, recipe)
    (fault,) = check(str(path), uri)
    assert "1 units came" in fault
    proof = json.loads(path.read_text())
    proof["table"]["digest"] = "0" * 32
    path.write_text(json.dumps(proof))
    assert "rows of the table" in check(str(path), decontaminated[0])[0]


def test_a_proof_does_not_outlive_what_was_compared(decontaminated, registry, recipe, planted, tmp_path):
    uri = shutil.copytree(decontaminated[0], str(tmp_path / "corpus"))
    sets = shutil.copytree(registry, str(tmp_path / "registry"))
    path = tmp_path / "proof.json"
    path.write_bytes(Proof.of(decontaminate(uri, [sets], CONFIG), CONFIG).to_json())
    assert check(str(path), uri) == []
    recording = Corpus.open(sets).recordings()["recording_id"][0].as_py().hex()
    take_down(sets, [Rule.parse("recording", recording)], reason="asked to")
    (fault,) = check(str(path), uri)
    assert fault.startswith(f"registry {sets!r} was at snapshot ")
    gated = recipe.model_copy(update={"annotators": {"content": ContentConfig(when={"column": "clip.duration_s", "min": 1.0})}})
    build([str(planted.manifest)], uri, gated)
    layer = Corpus.open(uri).layers()["content"]
    assert f"which is {layer} by now; decontaminate again" in check(str(path), uri)[0]


def test_a_damaged_proof_is_refused_in_one_line(decontaminated, tmp_path):
    path, whole = tmp_path / "proof.json", Proof.of(decontaminated[1], CONFIG).to_json()
    damaged = {
        "Invalid JSON": whole[: len(whole) // 2],
        "Invalid JSON: expected value": b"\xff",
        "corpus: Field required": b"{}",
        "registries.0.digest: Field required": re.sub(rb'"digest": "[^"]*",\s*"clips"', b'"clips"', whole),
        "config.ngram: Input should be greater": whole.replace(b'"ngram": 13', b'"ngram": 0'),
        "format_version: Input should be 2": whole.replace(b'"format_version": 2', b'"format_version": 1'),
    }
    for what, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(RequestError) as refused:
            check(str(path), decontaminated[0])
        assert what in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(RequestError, match="FileNotFoundError"):
        check(str(tmp_path / "none.json"), decontaminated[0])


def test_a_proof_holds_from_another_folder(corpus, registry, tmp_path, monkeypatch):
    shutil.copytree(corpus, tmp_path / "corpus")
    shutil.copytree(registry, tmp_path / "registry")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proof.json").write_bytes(Proof.of(decontaminate("corpus", ["./registry"], CONFIG), CONFIG).to_json())
    proof = read_proof("proof.json")
    assert (proof.corpus.uri, proof.registries[0].uri) == (str(tmp_path / "corpus"), str(tmp_path / "registry"))
    monkeypatch.chdir("/")
    assert check(str(tmp_path / "proof.json")) == []


def test_a_registry_with_unreadable_audio_is_refused_and_nothing_changes(corpus, tmp_path):
    write_registry(tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    soundfile.write(tmp_path / "rain.wav", 0.01 * np.random.default_rng(0).standard_normal(3 * RATE_HZ), RATE_HZ)
    uri = str(tmp_path / "registry")
    build([str(tmp_path / "*.wav")], uri, load_recipe(BuildRecipe, "pipeline", "registry"))
    copied = shutil.copytree(corpus, str(tmp_path / "corpus"))
    before = sorted(str(path) for path in Path(copied).rglob("*"))
    with pytest.raises(RequestError, match=r"unreadable audio: '.*broken\.wav' \(\w+\); .*--allow-unreadable"):
        decontaminate(copied, [uri], CONFIG)
    assert sorted(str(path) for path in Path(copied).rglob("*")) == before
    allowed = decontaminate(copied, [uri], CONFIG, allow_unreadable=True)
    assert allowed.registries[0].num_unreadable == 1
    assert allowed.registries[0].num_unheard == 1
    assert "not compared: 1 recording of the registries in which no speech was heard" in "\n".join(allowed.lines())


def test_without_a_registry_it_says_what_to_name(corpus):
    with pytest.raises(RequestError, match="--registry"):
        decontaminate(corpus, [], CONFIG)


def test_a_place_for_the_proof_is_asked_for_before_any_work(tmp_path):
    from typer.testing import CliRunner

    import stepwell

    for place in (str(tmp_path), str(tmp_path / "no" / "proof.json")):
        done = CliRunner().invoke(
            stepwell.app, ["manifest", "decontaminate", "nowhere", "--registry", "nowhere", "--proof", place]
        )
        assert isinstance(done.exception, RequestError)
        assert str(done.exception) == f"--proof {place!r} cannot be written: give a file in a folder that is there"


def test_a_transcript_of_a_recording_that_is_several_clips_contaminates_none_of_them(registry, light, planted, tmp_path, names):
    rows = [
        {"path": str(planted.folder / "show-0.wav"), "text": OTHER, "language": "en"},
        {"path": str(planted.folder / "adam-3.wav"), "text": OTHER, "language": "en"},
    ]
    source, uri = tmp_path / "m.jsonl", str(tmp_path / "corpus")
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut = light(clip_set={"turns": None, "max_s": 7.0}, annotators={"content": {"kind": "content"}})
    build([str(source)], uri, cut)
    result = decontaminate(uri, [registry], DecontaminateConfig(by=("text",)))
    assert names(uri).count("show-0") > 1
    assert {name: row["evaluation_set"] for name, row in found(uri, names).items()} == {"adam-3": "clean-test"}
    assert result.num_untold == 1
    assert "not compared: the source's transcript of 1 recording of several clips; a transcript of each clip" in "\n".join(
        result.lines()
    )


def test_a_column_that_holds_no_texts_is_refused(corpus, registry):
    with pytest.raises(RequestError, match=r"'clip.duration_s' holds double and no texts; name one that does"):
        decontaminate(corpus, [registry], DecontaminateConfig(text_columns=("clip.duration_s",)))
