from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.contracts import Audio
from manifests.corpus import Corpus
from manifests.errors import RequestError
from tests.tokenization.small_codecs import write_mimi
from tokenization.artifact import Tokenizer
from tokenization.build import TokenizerResult, build_tokenizer, corpus_texts
from tokenization.check import check_tokenizer
from tokenization.codec_batches import CodecBatch
from tokenization.codec_learner import Learner
from tokenization.interleave import deinterleave, interleave
from tokenization.recipe import TokenizerRecipe, TrainedText


def test_the_folder_is_whole(built: TokenizerResult, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    names = {path.name for path in folder.iterdir()}
    parts = {"tokenizer.json", "text_tokenizer.json", "codec.json", "codec.safetensors", "recipe.json"}
    assert names == parts | {"codec_reader.json", "codec_reader.safetensors", "metrics.json", "metrics.jsonl"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 12]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == built.metrics
    assert metrics["num_clips"] == metrics["num_supervised"] == 6
    resolved = json.loads((folder / "recipe.json").read_text())
    assert resolved["codec"]["training"]["learning_rate"] > 0
    assert built.is_new
    assert any("mel error" in line for line in built.lines())


def test_the_same_again_is_found_and_another_refused(
    built: TokenizerResult, corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe], recipe_text: str
) -> None:
    out = str(tmp_path / "tokenizer")
    before = {path: path.stat().st_mtime_ns for path in Path(out).iterdir()}
    again = build_tokenizer(corpus_uri, out, make_recipe())
    assert (again.is_new, again.tokenizer_id) == (False, built.tokenizer_id)
    with pytest.raises(RequestError, match="choose another --out"):
        build_tokenizer(corpus_uri, out, make_recipe(recipe_text.replace("steps: 12", "steps: 13")))
    assert {path: path.stat().st_mtime_ns for path in Path(out).iterdir()} == before
    elsewhere = build_tokenizer(corpus_uri, str(tmp_path / "elsewhere"), make_recipe())
    assert elsewhere.tokenizer_id == built.tokenizer_id


def test_its_own_layer_of_codes_does_not_make_the_tokenizer_another(
    built: TokenizerResult,
    corpus_uri: str,
    add_layer: Callable[..., None],
    make_recipe: Callable[..., TokenizerRecipe],
    encode_corpus: Callable[[str, str], pa.Table],
) -> None:
    add_layer(corpus_uri, "codes", encode_corpus(corpus_uri, built.tokenizer_uri))
    assert not build_tokenizer(corpus_uri, built.tokenizer_uri, make_recipe()).is_new


def test_an_unfinished_folder_is_begun_again(
    built: TokenizerResult, corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe]
) -> None:
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    again = build_tokenizer(corpus_uri, str(tmp_path / "tokenizer"), make_recipe())
    assert (again.is_new, again.tokenizer_id) == (True, built.tokenizer_id)


def test_texts_come_from_sources_layers_and_files(corpus_uri: str, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("first\n\nsecond 二\n")
    corpus = Corpus.open(corpus_uri)
    texts = corpus_texts(corpus, TrainedText(kind="bpe", extra_texts=[str(extra)]))
    assert texts[0] == "the cat sat on the mat"
    assert texts[3] == "guess 0"
    assert texts[-2:] == ["first", "second 二"]
    assert len(texts) == 3 + 6 + 2
    assert corpus_texts(corpus, TrainedText(kind="bpe", text_from=[])) == []


def test_what_is_missing_is_said_before_anything_is_written(
    corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe], recipe_text: str
) -> None:
    out = tmp_path / "out"
    cases = [
        (recipe_text.replace("asr", "whisper"), r"layer 'whisper'; the corpus has \['asr'\]"),
        (recipe_text.replace("text_from: [source, asr]", "extra_texts: [/nowhere.txt]"), "mend text.extra_texts"),
        ("name: s\ntext: {kind: bpe}\ncodec: {kind: s3, weights_path: /nowhere.onnx}", r"no weights at '/nowhere\.onnx'"),
        (
            recipe_text.replace("{kind: bpe, vocab_size: 270, text_from: [source, asr]}", "{kind: published, path: /no.json}"),
            "cannot be opened",
        ),
    ]
    for text, message in cases:
        with pytest.raises(RequestError, match=message):
            build_tokenizer(corpus_uri, str(out), make_recipe(text))
    with pytest.raises(RequestError, match="no corpus at"):
        build_tokenizer(str(tmp_path / "none"), str(out), make_recipe())
    assert not out.exists()


def test_another_rate_and_size_go_all_the_way(
    corpus_uri: str,
    tmp_path: Path,
    add_layer: Callable[..., None],
    make_recipe: Callable[..., TokenizerRecipe],
    encode_corpus: Callable[[str, str], pa.Table],
) -> None:
    """Mimi: 12.5 codes a second of 2048, heard at 24 kHz."""
    recipe = f"name: m\ntext: {{kind: bpe}}\ncodec: {{kind: mimi, checkpoint: {write_mimi(tmp_path / 'mimi')}}}\n"
    made = build_tokenizer(corpus_uri, str(tmp_path / "out"), make_recipe(recipe))
    tokenizer = Tokenizer.open(made.tokenizer_uri)
    assert (tokenizer.codec_facts.frame_rate_hz, tokenizer.codec_facts.sample_rate_hz) == (12.5, 24_000)
    assert tokenizer.vocabulary.num_codes == tokenizer.loaded_codec().num_codes == 2048
    layer = encode_corpus(corpus_uri, made.tokenizer_uri)
    assert layer.column("num_codes").to_pylist() == [13, 21] * 3  # of 1.0 and 1.64 s
    add_layer(corpus_uri, "codes", layer)
    found = check_tokenizer(made.tokenizer_uri, corpus_uri).layer
    assert found is not None
    assert found.is_sound
    codes = np.asarray(layer.column("codes")[1].as_py())
    ids, _ = interleave([], codes, tokenizer.vocabulary)
    np.testing.assert_array_equal(deinterleave(ids, tokenizer.vocabulary)[1], codes)


def test_the_published_vocabulary_takes_codecs_of_its_size_only(
    corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe]
) -> None:
    codec = f"{{kind: mimi, checkpoint: {write_mimi(tmp_path / 'mimi')}}}"
    recipe = make_recipe(f"name: m\ntext: {{kind: published, path: qwen.json}}\ncodec: {codec}\n")
    with pytest.raises(RequestError, match="the codec has 2048 codes, the published vocabulary 6561; use a codec of that size"):
        build_tokenizer(corpus_uri, str(tmp_path / "out"), recipe)
    assert not (tmp_path / "out").exists()


def test_published_text_takes_the_published_vocabulary(
    corpus_uri: str, tmp_path: Path, voice: Callable[..., Audio], make_recipe: Callable[..., TokenizerRecipe], recipe_text: str
) -> None:
    from tokenization.text import TextTokenizer

    path = tmp_path / "qwen.json"
    TextTokenizer.train(["hello there"], 260).save(str(path))
    text = recipe_text.replace("{kind: bpe, vocab_size: 270, text_from: [source, asr]}", f"{{kind: published, path: {path}}}")
    made = build_tokenizer(corpus_uri, str(tmp_path / "out"), make_recipe(text))
    assert made.num_rows == 158_720
    assert Tokenizer.open(made.tokenizer_uri).vocabulary.audio_id(0) == 151_696


def test_a_training_that_was_cut_off_goes_on_in_its_folder(
    corpus_uri: str,
    tmp_path: Path,
    make_recipe: Callable[..., TokenizerRecipe],
    recipe_text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = recipe_text.replace("log_every: 5", "log_every: 5, checkpoint_every: 4")
    unbroken = build_tokenizer(corpus_uri, str(tmp_path / "unbroken"), make_recipe(text))
    steps: list[int] = []
    step = Learner._train_step

    def until_ten(self: Learner, batch: CodecBatch) -> None:
        steps.append(1)
        if len(steps) > 10:
            raise KeyboardInterrupt
        step(self, batch)

    monkeypatch.setattr(Learner, "_train_step", until_ten)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_tokenizer(corpus_uri, str(out), make_recipe(text))
    assert {path.name for path in out.iterdir()} == {"codec_training.pt"}
    with pytest.raises(RequestError, match="holds a codec at step 8 of another corpus, snapshot or recipe"):
        build_tokenizer(corpus_uri, str(out), make_recipe(text.replace("steps: 12", "steps: 13")))
    steps.clear()
    resumed = build_tokenizer(corpus_uri, str(out), make_recipe(text))
    assert len(steps) == 4
    assert (resumed.is_new, resumed.tokenizer_id) == (True, unbroken.tokenizer_id)
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "unbroken").iterdir()}
