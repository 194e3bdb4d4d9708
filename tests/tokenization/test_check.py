from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from manifests.errors import RequestError
from manifests.schema import layer_schema
from tokenization.build import TokenizerResult
from tokenization.check import check_tokenizer
from tokenization.codes import CodesConfig


def test_check_of_files_and_of_a_layer(
    built: TokenizerResult, corpus_uri: str, add_layer: Callable[..., None], encode_corpus: Callable[[str, str], pa.Table]
) -> None:
    assert check_tokenizer(built.tokenizer_uri).layer is None
    with pytest.raises(RequestError, match="stepwell tokenizer encode"):
        check_tokenizer(built.tokenizer_uri, corpus_uri)
    layer = encode_corpus(corpus_uri, built.tokenizer_uri)
    add_layer(corpus_uri, "codes", layer)
    found = check_tokenizer(built.tokenizer_uri, corpus_uri).layer
    assert found is not None
    assert found.is_sound
    assert (found.num_clips, found.num_encoded_again, found.num_codes) == (6, 6, 201)
    assert 1 <= found.perplexity <= 201
    assert found.stability is not None
    assert 0 <= found.stability <= 1
    assert found.word_error is not None  # twelve steps read nothing; that they were asked is what is tested
    assert found.letter_error == pytest.approx(1.0, abs=0.2)
    lines = check_tokenizer(built.tokenizer_uri, corpus_uri).lines()
    assert any("of their codes come back" in line for line in lines)
    assert any("of the words" in line for line in lines)


def test_check_finds_codes_of_another_codec(
    built: TokenizerResult, corpus_uri: str, add_layer: Callable[..., None], encode_corpus: Callable[[str, str], pa.Table]
) -> None:
    rows: list[dict[str, Any]] = encode_corpus(corpus_uri, built.tokenizer_uri).to_pylist()
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
