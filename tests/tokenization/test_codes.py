from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from manifests.contracts import Annotator, Hearing
from manifests.corpus import Corpus
from manifests.errors import ContractError, RequestError
from manifests.schema import CODES, check_table, layer_schema
from tokenization.artifact import Tokenizer
from tokenization.build import TokenizerResult, build_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe


def test_codes_are_a_layer_like_any_other(
    built: TokenizerResult, corpus_uri: str, encode_corpus: Callable[[str, str], pa.Table]
) -> None:
    annotator = CodesConfig(kind="codes", tokenizer=built.tokenizer_uri).build()
    assert isinstance(annotator, Annotator)
    assert annotator.hears is Hearing.NATIVE
    layer = check_table(encode_corpus(corpus_uri, built.tokenizer_uri), layer_schema(annotator.adds), "codes")
    assert layer.schema.field("codes").type == CODES
    assert layer.column("clip_id") == Corpus.open(corpus_uri).clips().column("clip_id")
    codes = layer.column("codes").to_pylist()
    assert layer.column("num_codes").to_pylist() == [len(row) for row in codes] == [26, 41] * 3
    codec = Tokenizer.open(built.tokenizer_uri).codec()
    assert codec.decode(np.asarray(codes[0], np.uint16)).shape == (26 * 640,)


def test_the_fingerprint_of_codes_is_the_codecs(
    built: TokenizerResult, corpus_uri: str, tmp_path: Path, make_recipe: Callable[..., TokenizerRecipe], recipe_text: str
) -> None:
    def fingerprint(text: str, name: str) -> str:
        made = build_tokenizer(corpus_uri, str(tmp_path / name), make_recipe(text))
        return CodesConfig(kind="codes", tokenizer=made.tokenizer_uri).build().fingerprint()

    own = CodesConfig(kind="codes", tokenizer=built.tokenizer_uri).build().fingerprint()
    assert fingerprint(recipe_text.replace("vocab_size: 270", "vocab_size: 260"), "other-text") == own
    assert fingerprint(recipe_text.replace("steps: 12", "steps: 13"), "other-codec") != own
    with pytest.raises(RequestError, match="no tokenizer at"):
        CodesConfig(kind="codes", tokenizer=str(tmp_path / "none")).build().fingerprint()


def test_an_engine_that_hands_over_wrong_audio_is_found(built: TokenizerResult, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenization.codec import FsqCodec

    monkeypatch.setattr(FsqCodec, "_encode", lambda self, item: np.zeros(3, np.uint16))
    with pytest.raises(ContractError, match="3 codes for 16000 samples; it states 25"):
        Tokenizer.open(built.tokenizer_uri).codec().encode([np.zeros(16_000, np.float32)])
