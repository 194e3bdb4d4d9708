from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Qwen2TokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

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


# Qwen2.5's added tokens behind its BPE, in the order of their ids, and whether its file calls them special.
QWEN_ADDED = {
    **dict.fromkeys(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"], True),
    **dict.fromkeys(["<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"], True),
    **dict.fromkeys(["<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"], True),
    **dict.fromkeys(["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"], False),
    **dict.fromkeys(["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"], False),
}
MIXED = [
    "Hello, world! It's 2026; they're 42% sure — aren't we?",
    "今天下雨了，我们带伞吧。第１２３页 ㈱",
    "中英mixed文本 with 数字123和emoji😀👩‍👩‍👧‍👦🇨🇳 end",
    "  leading, trailing  \n\n\ttabs\r\nand   runs   ",
    "cafe\u0301 ÅÅ 한국어 العربية हिन्दी",
    "http://a.b/c?d=e&f=1_000.50 <think>not special</think>",
    "",
]


@pytest.fixture(scope="module")
def qwen_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ``tokenizer.json`` in the format of Qwen2.5's, with few merges."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False, byte_fallback=False))
    bpe.normalizer = normalizers.NFC()
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(**byte_level)])
    bpe.post_processor = processors.ByteLevel(**byte_level)
    bpe.decoder = decoders.ByteLevel(**byte_level)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(MIXED * 3, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    for token, is_special in QWEN_ADDED.items():
        added = AddedToken(token, special=is_special, normalized=False)
        bpe.add_special_tokens([added]) if is_special else bpe.add_tokens([added])
    path = str(tmp_path_factory.mktemp("qwen") / "tokenizer.json")
    bpe.save(path)
    return path


@pytest.fixture(scope="module")
def oracle(qwen_file: str) -> Qwen2TokenizerFast:
    return Qwen2TokenizerFast(tokenizer_file=qwen_file)


@pytest.mark.parametrize("text", MIXED)
def test_a_qwen_file_gives_the_ids_of_transformers(qwen_file: str, oracle: Qwen2TokenizerFast, text: str) -> None:
    loaded = TextTokenizer.load(qwen_file)
    ids = loaded.encode(text)
    assert ids == oracle(text)["input_ids"]
    assert loaded.decode(ids) == oracle.decode(ids, clean_up_tokenization_spaces=False) == unicodedata.normalize("NFC", text)


LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from("字好12٣ 　\n\t'😀é\u0301")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(LETTERS, max_size=60))
def test_any_text_has_the_ids_of_transformers(qwen_file: str, oracle: Qwen2TokenizerFast, text: str) -> None:
    assert TextTokenizer.load(qwen_file).encode(text) == oracle(text)["input_ids"]


def test_a_tokenizer_trained_here_is_one_of_qwens_kind(tmp_path: Path) -> None:
    path = str(tmp_path / "text.json")
    TRAINED.save(path)
    theirs = Qwen2TokenizerFast(tokenizer_file=path)
    for text in MIXED[:3]:
        assert theirs(text)["input_ids"] == TRAINED.encode(text)


def test_added_tokens_count_and_are_never_read_out_of_a_text(qwen_file: str) -> None:
    """Also those that the file does not call special, such as <tool_call>; their ids are still decoded."""
    loaded = TextTokenizer.load(qwen_file)
    assert loaded.vocab_size == loaded.bpe_size + len(QWEN_ADDED)
    assert loaded.added == {token: loaded.bpe_size + place for place, token in enumerate(QWEN_ADDED)}
    for token in QWEN_ADDED:
        ids = loaded.encode(f"a{token}b")
        assert max(ids) < loaded.bpe_size, token
        assert loaded.decode(ids) == f"a{token}b"
    assert loaded.decode([loaded.added["<tool_call>"]]) == "<tool_call>"


def test_what_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    file = tmp_path / "text.json"
    whole = TRAINED.data.encode()
    for damaged in (
        b'{"no": 1}',
        b"",
        b"[]",
        whole[: len(whole) // 2],
        whole + b"\xff",
        b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
    ):
        file.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"text\.json'.*; give a tokenizer\.json"):
            TextTokenizer.load(str(file))
    with pytest.raises(RequestError, match="cannot be opened"):
        TextTokenizer.load(str(tmp_path / "none.json"))
    with pytest.raises(RequestError, match="below 256"):
        TextTokenizer.train(TEXTS, 255)
