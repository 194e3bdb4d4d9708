from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.scripts import main_script, script_counts
from annotators.text_tokens import keys, tokens, written


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello, well-known ‘World’! – don’t", "en", ["hello", "well", "known", "world", "don't"]),
        ("我爱 Machine Learning，真的。", "zh", ["我", "爱", "machine", "learning", "真", "的"]),
        ("這裡", "zh", ["这", "里"]),
        ("안녕, 하세요", "ko", ["안", "녕", "하", "세", "요"]),
        ("안녕, 하세요", None, ["안녕", "하세요"]),
        ("हिन्दी में", "hi", ["हिन्दी", "में"]),
        ("ＡＢＣ", "en", ["abc"]),
        ("… ♪ –", "en", []),
    ],
)
def test_keys_are_words_or_characters(text: str, language: str | None, expected: list[str]) -> None:
    assert keys(tokens(text, language)) == expected


def test_surfaces_keep_punctuation_and_spaces() -> None:
    for text, language in (("Hello, “well-known” world!", "en"), ("我爱 machine learning，真的。", "zh"), ("안녕, 하세요", "ko")):
        assert written(tokens(text, language)) == text


def test_what_follows_the_end_of_a_text_depends_on_how_its_language_is_written() -> None:
    assert written([*tokens("hello", "en"), *tokens("world", "en")]) == "hello world"
    assert written([*tokens("你好", "zh"), *tokens("世界", "zh")]) == "你好世界"


@given(st.text(), st.sampled_from(["en", "zh", "ko", "th", None]))
def test_from_the_first_token_on_nothing_but_spaces_is_lost(text: str, language: str | None) -> None:
    kept = "".join(written(tokens(text, language)).split())
    assert "".join(text.split()).endswith(kept)
    assert bool(kept) == any(unicodedata.category(c)[0] in "LN" for c in text)


@pytest.mark.parametrize(
    ("text", "script", "counts"),
    [
        ("这里是台湾", "Hans", {"Hani": 5}),
        ("這裡是臺灣", "Hant", {"Hani": 5}),
        ("你好", "Hani", {"Hani": 2}),
        ("なるほど日本", "Jpan", {"Jpan": 6}),
        ("我喜欢 AI", "Hans", {"Hani": 3, "Latn": 2}),
        ("Hello Мир", "Latn", {"Latn": 5, "Cyrl": 3}),
        ("한국어", "Hang", {"Hang": 3}),
        ("да da", None, {"Cyrl": 2, "Latn": 2}),
        ("ＡＢ ｶﾀ", None, {"Latn": 2, "Jpan": 2}),
        ("12 %", None, {}),
    ],
)
def test_scripts(text: str, script: str | None, counts: dict[str, int]) -> None:
    found = script_counts(text)
    assert found == Counter(counts)
    assert main_script(text, found) == script
