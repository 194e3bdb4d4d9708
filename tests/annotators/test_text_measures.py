from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.text_measures import compression_ratio, longest_repeat, repeated_ngram_ratio, unique_ratio

words = st.lists(st.sampled_from("abc"), max_size=30)


def test_share_of_tokens_in_repeated_ngrams() -> None:
    assert repeated_ngram_ratio(["a", "b", "c", "x", "a", "b", "c", "y"], 3) == 6 / 8
    assert repeated_ngram_ratio(["a", "a", "a", "a"], 3) == 1.0
    assert repeated_ngram_ratio(["a", "b", "c", "d"], 3) == 0.0
    assert repeated_ngram_ratio(["a", "b"], 3) is None


@pytest.mark.parametrize(
    ("text", "times"),
    [("", 0), ("a", 1), ("a b c", 1), ("a a a b", 3), ("x thank you thank you thank you y", 3), ("a b a", 1), ("a b a b a", 2)],
)
def test_times_that_an_ngram_stands_in_a_row(text: str, times: int) -> None:
    assert longest_repeat(text.split(), 10) == times


@given(words, st.integers(1, 4))
def test_longest_repeat_is_what_a_search_of_all_pieces_finds(listed: list[str], longest: int) -> None:
    best = min(1, len(listed))
    for size in range(1, longest + 1):
        for start in range(len(listed)):
            times = 1
            while listed[start : start + size] == listed[start + times * size : start + (times + 1) * size] != []:
                times += 1
            best = max(best, times)
    assert longest_repeat(listed, longest) == best


def test_compression_ratio_is_whispers() -> None:
    text = "thank you " * 40
    assert compression_ratio(text) == len(text.encode()) / len(zlib.compress(text.encode()))
    assert compression_ratio(text) > 2.4
    assert compression_ratio("he hoped there would be stew for dinner turnips and carrots") < 1.2
    assert compression_ratio("") is None


@given(words)
def test_shares_lie_between_none_and_all(listed: list[str]) -> None:
    assert unique_ratio(listed) is None if not listed else 1 / len(listed) <= (unique_ratio(listed) or 0) <= 1
    assert 0 <= (repeated_ngram_ratio(listed, 2) or 0.0) <= 1
