"""Synthetic speech on its way: said once, found again, and known for synthetic in corpus and pack whatever happens to its manifest."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import load_recipe
from manifests.scoring import read_rttm, read_stm
from pipeline.build import build
from pipeline.pack import pack
from pipeline.recipe import PackRecipe, VoicesRecipe
from pipeline.synthesis import synthesise

pytest.importorskip("espeakng_loader")
RECIPE = VoicesRecipe.model_validate(
    {
        "name": "t",
        "licence": "CC0-1.0",
        "voices": {
            "ann": {"kind": "espeak", "voice": "en-us", "variant": "f2"},
            "bob": {"kind": "espeak", "voice": "en-us", "variant": "m3"},
            "cem": {"kind": "espeak", "voice": "de", "variant": "m1"},
        },
    }
)
DIALOGUE = {
    "language": "en",
    "turns": [
        {"role": "user", "text": "What time is it?"},
        {"role": "assistant", "text": "Ten past three."},
        {"role": "user", "text": "Thank you."},
    ],
}


def texts(folder: Path, *rows: Any) -> str:
    path = folder / "texts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def said_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "said.jsonl").read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_rows_become_marked_files_in_the_order_of_the_texts(tmp_path: Path) -> None:
    rows = [{"text": text, "language": "en"} for text in ("one fish", "two fish", "red fish")]
    said = synthesise(texts(tmp_path, *rows, {"text": "Guten Morgen", "language": "de"}), str(tmp_path / "out"), RECIPE)
    found = said_in(tmp_path / "out")
    assert (said.num_files, said.num_made) == (4, 4)
    assert [row["text"] for row in found] == ["one fish", "two fish", "red fish", "Guten Morgen"]
    assert found[3]["speaker_label"] == "cem"
    assert {row["licence"] for row in found} == {"CC0-1.0"}
    for row in found:
        with soundfile.SoundFile(tmp_path / "out" / row["uri"]) as file:
            assert file.comment == f"synthetic: {row['synthesizer']}"
            assert (file.samplerate, file.frames) == (24_000, row["num_samples"])
        assert [word["word"] for word in row["words"]] == row["text"].split()
        assert row["words"][-1]["end_sample"] <= row["num_samples"]


def test_what_was_interrupted_is_continued_to_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"text": text, "language": "en"} for text in ("one fish", "two fish", "red fish", "blue fish")]
    source = texts(tmp_path, *rows)
    synthesise(source, str(tmp_path / "whole"), RECIPE)
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    lines = (broken / "said.jsonl").read_text().splitlines(keepends=True)
    (broken / "said.jsonl").write_text("".join(lines[:2]) + lines[2][:40])  # killed while it wrote its third line
    (broken / "manifest.jsonl").unlink()
    (broken / said_in(tmp_path / "whole")[1]["uri"]).unlink()
    assert synthesise(source, str(broken), RECIPE).num_made == 3
    assert contents(broken) == contents(tmp_path / "whole")
    assert synthesise(source, str(broken), RECIPE).num_made == 0
    assert contents(broken) == contents(tmp_path / "whole")


def test_a_row_that_says_the_same_again_is_no_second_file(tmp_path: Path) -> None:
    row = {"text": "one fish", "language": "en"}
    said = synthesise(texts(tmp_path, row, row, {**row, "voice": "ann"}, {**row, "voice": "bob"}), str(tmp_path / "out"), RECIPE)
    assert (said.num_files, said.num_repeated) == (2, 2)


def test_a_dialogue_has_a_voice_a_role_and_references_beside_it(tmp_path: Path) -> None:
    synthesise(texts(tmp_path, DIALOGUE), str(tmp_path / "out"), RECIPE)
    (row,) = said_in(tmp_path / "out")
    speakers = [turn["speaker_label"] for turn in row["turns"]]
    assert speakers[0] == speakers[2] != speakers[1]
    assert row["speaker_label"] is None
    turns = read_rttm(str(tmp_path / "out" / row["reference_rttm_uri"]))
    segments = read_stm(str(tmp_path / "out" / row["reference_stm_uri"]))
    assert [turn.speaker for turn in segments] == speakers
    assert [segment.words for segment in segments] == [turn["text"] for turn in DIALOGUE["turns"]]
    audio, rate = soundfile.read(tmp_path / "out" / row["uri"])
    for turn, following in itertools.pairwise(turns):
        assert following.start_s - turn.end_s == pytest.approx(0.3, abs=0.002)
        gap = audio[round(turn.end_s * rate) + 1 : round(following.start_s * rate) - 1]
        assert np.abs(gap).max() < 1e-4
    assert len(row["words"]) == 9


def test_a_channel_a_role_where_the_recipe_says_so(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"one_channel_a_role": True})
    synthesise(texts(tmp_path, DIALOGUE), str(tmp_path / "out"), recipe)
    (row,) = said_in(tmp_path / "out")
    audio, _ = soundfile.read(tmp_path / "out" / row["uri"])
    assert audio.shape[1] == 2
    for turn in row["turns"]:
        said = audio[turn["start_sample"] : turn["end_sample"]]
        assert np.abs(said[:, turn["channel"]]).max() > 0.05
        assert not said[:, 1 - turn["channel"]].any()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nothing", "line 1 has to be an object with one of `text` and `turns`"),
        ({"language": "en"}, "has to be an object with one of"),
        ({"text": "a", "turns": [], "language": "en"}, "with one of"),
        ({"text": " ", "language": "en"}, "'text' is ' '; it has to be a string with something in it"),
        ({"text": "hello"}, "'language' is None"),
        ({"turns": [{"text": "hi"}], "language": "en"}, "'role' is None"),
        ({"turns": [], "language": "en"}, "`turns` has to be a list of objects"),
        ({"text": "bonjour", "language": "fr"}, r"needs 1 voices of language 'fr'; the recipe has 0 \(none\); add voices"),
        ({"text": "hi", "language": "en", "voice": "zoe"}, "voice 'zoe' is not in the recipe; it has ann, bob, cem"),
        ({"text": "hi", "language": "en", "voice": ["ann"]}, r"voice \['ann'\] is not in the recipe"),
        (
            {"turns": [{"role": role, "text": "hi"} for role in "abc"], "language": "en"},
            r"needs 3 voices of language 'en'; the recipe has 2 \(ann, bob\)",
        ),
    ],
)
def test_rows_that_cannot_be_said_are_refused_before_anything_is_written(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refusal:
        synthesise(texts(tmp_path, row), str(tmp_path / "out"), RECIPE)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_the_shipped_recipe_speaks_what_it_says(tmp_path: Path) -> None:
    recipe = load_recipe(VoicesRecipe, "pipeline", "voices")
    rows = [
        {"text": "eins zwei drei" if name.startswith("de") else "hola 你好 hello", "language": name[:2], "voice": name}
        for name in recipe.voices
    ]
    assert synthesise(texts(tmp_path, *rows), str(tmp_path / "out"), recipe).num_files == len(recipe.voices)


def test_synthetic_speech_stays_known_in_corpus_and_pack(light: Any, tmp_path: Path) -> None:
    """With its manifest, and as bare files that somebody copied elsewhere."""
    rows = [{"text": "one two three four five six", "language": "en", "voice": name} for name in ("ann", "bob")]
    synthesise(texts(tmp_path, *rows), str(tmp_path / "said"), RECIPE)
    copies = tmp_path / "copies"
    copies.mkdir()
    for number, path in enumerate(sorted((tmp_path / "said").glob("*.flac"))):
        shutil.copy(path, copies / f"nice_recording_{number}.flac")
    expected = {"espeak-ng 1.52.0 (en-us+f2)", "espeak-ng 1.52.0 (en-us+m3)"}
    for name, source in (("told", str(tmp_path / "said" / "manifest.jsonl")), ("bare", str(copies))):
        corpus = str(tmp_path / f"{name}_corpus")
        build([source], corpus, light(annotators={}))
        assert {row["synthesizer"] for row in Corpus.open(corpus).inputs().to_pylist()} == expected
        out = str(tmp_path / f"{name}_pack")
        pack([corpus], out, PackRecipe(name="t", text_from=["source"], require_text=False))
        packed = Pack.open(out)
        documents = packed.documents("train").to_pylist()
        assert {row["synthesizer"] for row in documents} == expected
        assert {packed.read(row["shard"], row["key"]).turns[0].facts["synthesizer"] for row in documents} == expected
