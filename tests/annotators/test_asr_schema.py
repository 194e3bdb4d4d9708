from __future__ import annotations

import pytest

from annotators.asr_schema import words_of
from annotators.scripts import SPACELESS
from annotators.text_tokens import CHARACTER_LANGUAGES


@pytest.mark.parametrize(("text", "language", "expected"), [("សួស្តី ពិភព", "km", "សួស្តីពិភព"), ("今天 好", "zh", "今天好")])
def test_characters_are_the_words_where_none_are_written_apart(text: str, language: str, expected: str) -> None:
    assert words_of(text, language) == list(expected)
    assert words_of(text, None) == text.split()


def test_recognisers_and_text_facts_know_the_same_languages_without_spaces() -> None:
    assert CHARACTER_LANGUAGES - {"ko"} == SPACELESS
