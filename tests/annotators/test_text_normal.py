from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.text_normal import chinese_numerals, normalised

LANGUAGES = ("en", "zh", "yue", "ja", "ko", "fr", "hi", None)


@pytest.mark.parametrize(
    ("language", "first", "second", "form"),
    [
        ("en", "Twenty-one colours, um, won't do.", "21 colors will not do", "21 colors will not do"),
        ("en", "It cost five dollars (laughs).", "it cost $5", "it cost $5"),
        ("zh", "我有3個蘋果，花了12.5元！", "我有三个苹果花了十二点五元", "我有三个苹果花了十二点五元"),
        ("zh", "2021年1月2日增长了30%", "二〇二一年一月二日增长了百分之三十", "二零二一年一月二日增长了百分之三十"),
        ("zh", "电话 13800138000", "电话幺三八零零幺三八零零零", "电话一三八零零一三八零零零"),
        ("zh", "两百块", "200块", "二百块"),
        ("zh", "我爱Machine Learning。", "我 爱 machine  learning", "我爱machine learning"),
        ("yue", "１，２３４人", "一千二百三十四人", "一千二百三十四人"),
        ("fr", "Ça va, l’été ?", "ça va l'été", "ça va l'été"),
        ("ja", "なるほど、 そうですか。", "なるほどそうですか", "なるほどそうですか"),
        ("ko", "안녕,  하세요!", "안녕 하세요", "안녕 하세요"),
        ("hi", "हिन्दी में।", "हिन्दी में", "हिन्दी में"),
    ],
)
def test_two_spellings_of_the_same_words_are_one_string(language: str, first: str, second: str, form: str) -> None:
    assert normalised(first, language) == form
    assert normalised(second, language) == form


@pytest.mark.parametrize("language", LANGUAGES)
def test_marks_alone_are_nothing(language: str | None) -> None:
    assert normalised(" …!? ", language) == ""


def test_other_words_stay_other_strings() -> None:
    assert normalised("十三", "zh") != normalised("三十", "zh")
    assert normalised("12", "zh") != normalised("1.2", "zh")
    assert normalised("a b", "de") != normalised("ab", "de")


def test_a_number_that_nobody_counts_is_read_digit_by_digit() -> None:
    assert chinese_numerals("007 和 123456789 和 12345") == "零零七 和 一二三四五六七八九 和 一万二千三百四十五"


# The English normaliser is left out: it is the field's, and reads "1 1" as "11", then as "11".
@given(st.text(), st.sampled_from([language for language in LANGUAGES if language != "en"]))
def test_a_normal_form_is_its_own(text: str, language: str | None) -> None:
    once = normalised(text, language)
    assert normalised(once, language) == once
    assert once == once.strip()


@given(st.text(alphabet="0123456789.,%/-:年月日 三百点a"))
def test_any_mixture_of_digits_and_marks_is_read(text: str) -> None:
    assert isinstance(normalised(text, "zh"), str)
    assert isinstance(normalised(text, "en"), str)
