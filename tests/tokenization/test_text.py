from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from tokenization.text import TextTokenizer

TEXTS = ["the cat sat on the mat", "the cat ate the rat", "你好世界，你好", "1 2 3 one two three"] * 3
TRAINED = TextTokenizer.train(TEXTS, 320)


@given(st.text(max_size=40))
def test_every_text_comes_back_as_nfc(text: str) -> None:
    ids = TRAINED.encode(text)
    assert all(0 <= i < TRAINED.vocab_size for i in ids)
    assert TRAINED.decode(ids) == unicodedata.normalize("NFC", text)


def test_a_spelled_special_token_is_plain_text() -> None:
    assert len(TRAINED.encode("<|EOT|>")) > 1


def test_training_merges_what_is_frequent_and_is_repeatable() -> None:
    assert TRAINED.vocab_size <= 320
    assert len(TRAINED.encode("the cat")) < len("the cat")
    assert TextTokenizer.train(iter(TEXTS), 320).digest == TRAINED.digest
    assert TextTokenizer.train(TEXTS, 260).vocab_size == 260


def test_without_texts_the_bytes_remain() -> None:
    empty = TextTokenizer.train([], 1000)
    assert empty.vocab_size == 256
    assert empty.decode(empty.encode("ü 好")) == "ü 好"


def test_a_file_and_a_pickle_are_the_same_tokenizer(tmp_path: Path) -> None:
    path = str(tmp_path / "text.json")
    TRAINED.save(path)
    for again in (TextTokenizer.load(path), pickle.loads(pickle.dumps(TRAINED))):
        assert again.digest == TRAINED.digest
        assert again.encode("the mat 你") == TRAINED.encode("the mat 你")


def test_added_tokens_of_a_published_file_count_and_are_not_read_out_of_text(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer

    bpe = Tokenizer.from_str(TRAINED.data)
    bpe.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    bpe.save(str(tmp_path / "text.json"))
    loaded = TextTokenizer.load(str(tmp_path / "text.json"))
    assert loaded.vocab_size == TRAINED.vocab_size + 1
    assert TRAINED.vocab_size not in loaded.encode("a<|endoftext|>b")


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text('{"no": 1}')
    with pytest.raises(RequestError, match=r"give a tokenizer\.json"):
        TextTokenizer.load(str(tmp_path / "text.json"))
    with pytest.raises(RequestError, match="cannot be opened"):
        TextTokenizer.load(str(tmp_path / "none.json"))
    with pytest.raises(RequestError, match="below 256"):
        TextTokenizer.train(TEXTS, 255)
