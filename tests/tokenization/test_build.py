from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from manifests.audio import resample
from manifests.contracts import Annotator, Audio, ClipBatch, Hearing
from manifests.corpus import Corpus
from manifests.errors import ContractError, RequestError
from manifests.recipes import decode_recipe
from manifests.schema import CODES, check_table, layer_schema
from tokenization.artifact import Tokenizer
from tokenization.build import TokenizerResult, build_tokenizer, corpus_texts
from tokenization.check import check_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe, TrainedText

RECIPE = """
name: test
text: {kind: bpe, vocab_size: 270, text_from: [source, asr]}
codec:
  kind: fsq
  network: {num_mels: 40, width: 16, encoder_blocks: 1, decoder_blocks: 1}
  training: {steps: 12, batch_size: 4, log_every: 5}
"""


def recipe(text: str = RECIPE) -> TokenizerRecipe:
    return decode_recipe(TokenizerRecipe, text, "test")


@pytest.fixture
def built(corpus_uri: str, tmp_path: Path) -> TokenizerResult:
    return build_tokenizer(corpus_uri, str(tmp_path / "tokenizer"), recipe())


def encoded(corpus_uri: str, tokenizer_uri: str) -> pa.Table:
    """The layer of codes, as an engine makes it."""
    corpus = Corpus.open(corpus_uri)
    reader, clips = corpus.audio(), corpus.clips()
    audio = [
        resample(
            reader.read(c["recording_id"], c["channel"], c["sample_rate_hz"], c["start_sample"], c["end_sample"]), 22_050, 16_000
        )
        for c in clips.to_pylist()
    ]
    annotator = CodesConfig(kind="codes", tokenizer=tokenizer_uri).build()
    return annotator.annotate(ClipBatch(clips, audio, [16_000] * len(audio)))


def test_the_folder_is_whole(built: TokenizerResult, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    names = {path.name for path in folder.iterdir()}
    parts = {"tokenizer.json", "text_tokenizer.json", "codec.json", "codec.safetensors", "recipe.json"}
    assert names == parts | {"metrics.json", "metrics.jsonl"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 12]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == built.metrics
    assert metrics["num_clips"] == 6
    resolved = json.loads((folder / "recipe.json").read_text())
    assert resolved["codec"]["training"]["learning_rate"] > 0
    assert built.is_new
    assert any("mel error" in line for line in built.lines())


def test_the_same_again_is_found_and_another_refused(built: TokenizerResult, corpus_uri: str, tmp_path: Path) -> None:
    out = str(tmp_path / "tokenizer")
    before = {path: path.stat().st_mtime_ns for path in Path(out).iterdir()}
    again = build_tokenizer(corpus_uri, out, recipe())
    assert (again.is_new, again.tokenizer_id) == (False, built.tokenizer_id)
    with pytest.raises(RequestError, match="choose another --out"):
        build_tokenizer(corpus_uri, out, recipe(RECIPE.replace("steps: 12", "steps: 13")))
    assert {path: path.stat().st_mtime_ns for path in Path(out).iterdir()} == before
    elsewhere = build_tokenizer(corpus_uri, str(tmp_path / "elsewhere"), recipe())
    assert elsewhere.tokenizer_id == built.tokenizer_id


def test_its_own_layer_of_codes_does_not_make_the_tokenizer_another(
    built: TokenizerResult, corpus_uri: str, add_layer: Callable[..., None]
) -> None:
    add_layer(corpus_uri, "codes", encoded(corpus_uri, built.tokenizer_uri))
    assert not build_tokenizer(corpus_uri, built.tokenizer_uri, recipe()).is_new


def test_an_unfinished_folder_is_begun_again(built: TokenizerResult, corpus_uri: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    again = build_tokenizer(corpus_uri, str(tmp_path / "tokenizer"), recipe())
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


def test_what_is_missing_is_said_before_anything_is_written(corpus_uri: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases = [
        (RECIPE.replace("asr", "whisper"), r"layer 'whisper'; the corpus has \['asr'\]"),
        (RECIPE.replace("text_from: [source, asr]", "extra_texts: [/nowhere.txt]"), "mend text.extra_texts"),
        ("name: s\ntext: {kind: bpe}\ncodec: {kind: s3, weights_path: /nowhere.onnx}", r"no weights at '/nowhere\.onnx'"),
        (
            RECIPE.replace("{kind: bpe, vocab_size: 270, text_from: [source, asr]}", "{kind: published, path: /no.json}"),
            "cannot be opened",
        ),
    ]
    for text, message in cases:
        with pytest.raises(RequestError, match=message):
            build_tokenizer(corpus_uri, str(out), recipe(text))
    with pytest.raises(RequestError, match="no corpus at"):
        build_tokenizer(str(tmp_path / "none"), str(out), recipe())
    assert not out.exists()


def test_a_recipe_is_decoded_strictly() -> None:
    for text, message in [
        (RECIPE.replace("steps:", "stepz:"), "codec.fsq.training.stepz"),
        (RECIPE.replace("kind: fsq", "kind: encodec"), "codec"),
        (RECIPE + "interleave_ratio: 0:4\n", "interleave_ratio"),
        (RECIPE.replace("vocab_size: 270", "vocab_size: 7"), "text.bpe.vocab_size"),
    ]:
        with pytest.raises(RequestError, match=message):
            recipe(text)


def test_codes_are_a_layer_like_any_other(built: TokenizerResult, corpus_uri: str) -> None:
    annotator = CodesConfig(kind="codes", tokenizer=built.tokenizer_uri).build()
    assert isinstance(annotator, Annotator)
    assert annotator.hears is Hearing.MODEL
    layer = check_table(encoded(corpus_uri, built.tokenizer_uri), layer_schema(annotator.adds), "codes")
    assert layer.schema.field("codes").type == CODES
    assert layer.column("clip_id") == Corpus.open(corpus_uri).clips().column("clip_id")
    codes = layer.column("codes").to_pylist()
    assert layer.column("num_codes").to_pylist() == [len(row) for row in codes] == [26, 41] * 3
    codec = Tokenizer.open(built.tokenizer_uri).codec()
    assert codec.decode(np.asarray(codes[0], np.uint16)).shape == (26 * 640,)


def test_the_fingerprint_of_codes_is_the_codecs(built: TokenizerResult, corpus_uri: str, tmp_path: Path) -> None:
    def fingerprint(text: str, name: str) -> str:
        made = build_tokenizer(corpus_uri, str(tmp_path / name), recipe(text))
        return CodesConfig(kind="codes", tokenizer=made.tokenizer_uri).build().fingerprint()

    own = CodesConfig(kind="codes", tokenizer=built.tokenizer_uri).build().fingerprint()
    assert fingerprint(RECIPE.replace("vocab_size: 270", "vocab_size: 260"), "other-text") == own
    assert fingerprint(RECIPE.replace("steps: 12", "steps: 13"), "other-codec") != own
    with pytest.raises(RequestError, match="no tokenizer at"):
        CodesConfig(kind="codes", tokenizer=str(tmp_path / "none")).build().fingerprint()


def test_an_engine_that_hands_over_wrong_audio_is_found(built: TokenizerResult, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenization.codec import FsqCodec

    monkeypatch.setattr(FsqCodec, "_encode", lambda self, item: np.zeros(3, np.uint16))
    with pytest.raises(ContractError, match="3 codes for 16000 samples; it states 25"):
        Tokenizer.open(built.tokenizer_uri).codec().encode([np.zeros(16_000, np.float32)])


def test_check_of_files_and_of_a_layer(built: TokenizerResult, corpus_uri: str, add_layer: Callable[..., None]) -> None:
    assert check_tokenizer(built.tokenizer_uri).layer is None
    with pytest.raises(RequestError, match="stepwell tokenizer encode"):
        check_tokenizer(built.tokenizer_uri, corpus_uri)
    layer = encoded(corpus_uri, built.tokenizer_uri)
    add_layer(corpus_uri, "codes", layer)
    found = check_tokenizer(built.tokenizer_uri, corpus_uri).layer
    assert found is not None
    assert found.is_sound
    assert (found.num_clips, found.num_encoded_again, found.num_codes) == (6, 6, 201)
    assert 1 <= found.perplexity <= 201


def test_check_finds_codes_of_another_codec(built: TokenizerResult, corpus_uri: str, add_layer: Callable[..., None]) -> None:
    rows: list[dict[str, Any]] = encoded(corpus_uri, built.tokenizer_uri).to_pylist()
    rows[0]["codes"] = rows[0]["codes"][:-1]
    rows[1]["codes"][0] = 7000
    rows[2]["codes"][0] = (rows[2]["codes"][0] + 1) % 6561
    rows[3].update(status="error", error="x", codes=None, num_codes=None)
    annotator = CodesConfig(kind="codes", tokenizer=built.tokenizer_uri).build()
    add_layer(corpus_uri, "codes", pa.Table.from_pylist(rows, schema=layer_schema(annotator.adds)))
    result = check_tokenizer(built.tokenizer_uri, corpus_uri)
    found = result.layer
    assert found is not None
    assert not found.is_sound
    assert not result.to_json()["is_sound"]
    assert (found.num_without_codes, found.num_wrong_length, found.num_out_of_range, found.num_changed) == (1, 1, 1, 3)


def test_published_text_takes_the_published_vocabulary(corpus_uri: str, tmp_path: Path, voice: Callable[..., Audio]) -> None:
    from tokenization.text import TextTokenizer

    path = tmp_path / "qwen.json"
    TextTokenizer.train(["hello there"], 260).save(str(path))
    text = RECIPE.replace("{kind: bpe, vocab_size: 270, text_from: [source, asr]}", f"{{kind: published, path: {path}}}")
    made = build_tokenizer(corpus_uri, str(tmp_path / "out"), recipe(text))
    assert made.num_rows == 158_720
    assert Tokenizer.open(made.tokenizer_uri).vocabulary.audio_id(0) == 151_696
