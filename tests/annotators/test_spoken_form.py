from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.spoken_form import PERCENT, spoken_form


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("en", "Dr. Smith paid $5.20 on 2026-11-26.", "Doctor Smith paid five dollars and twenty cents on November twenty-sixth, twenty twenty-six."),
        ("en", "£1,200 and €2.5 million, $1", "one thousand two hundred pounds and two point five million euros, one dollar"),
        ("en", "In 1999, the 1980s, 1,234 people", "In nineteen ninety-nine, the nineteen eighties, one thousand two hundred and thirty-four people"),
        ("en", "Nov 26 at 10:05, 10:00 and 14:30", "November twenty-sixth at ten oh five, ten o'clock and fourteen thirty"),
        ("en", "21st of 3.5%, 10-20 at -3", "twenty-first of three point five percent, ten to twenty at minus three"),
        ("en", "5 km, 1 kg, 20°C", "five kilometers, one kilogram, twenty degrees Celsius"),
        ("en", "call 555-1234 or 007", "call five five five one two three four or zero zero seven"),
        ("en", "MP3, B2B, 4K, v1.2.3", "MP3, B2B, 4K, v1.2.3"),
        ("en", "No. 5 & No. 6, e.g. this", "number five and number six, for example this"),
        ("zh", "2个人，第2个，¥1,200，增长30%", "两个人，第二个，一千二百元，增长百分之三十"),
        ("zh", "下午3:30到10:05", "下午三点三十分到十点零五分"),
        ("de", "1999 kostet es 5,20 € für 1.234,5 kg", "neunzehnhundertneunundneunzig kostet es fünf Euro und zwanzig Cent für eintausendzweihundertvierunddreißig Komma fünf kg"),
        ("fr", "12 % de 1 234, -5", "douze pour cent de mille deux cent trente-quatre, moins cinq"),
        ("it", "1.234,5", "milleduecentotrentaquattro virgola cinque"),
        ("ja", "3個で500円、50%", "三個で五百円、五十パーセント"),
    ],
)  # fmt: skip
def test_what_is_written_is_read_aloud(language: str, written: str, spoken: str) -> None:
    assert spoken_form(written, language) == spoken


@pytest.mark.parametrize("language", ["ko", "ru", "xx", None])
def test_a_language_without_rules_has_no_spoken_form(language: str | None) -> None:
    assert spoken_form("3 apples", language) is None


@pytest.mark.parametrize("number", ["1" + ",000" * 110, "$1" + ",000" * 110, "1" + ",000" * 110 + "th", "1" * 400 + "km"])
def test_a_number_without_a_name_has_no_spoken_form(number: str) -> None:
    assert spoken_form(f"It costs {number}", "en") is None


@pytest.mark.parametrize("language", [*PERCENT, "zh"])
def test_text_without_numbers_stays(language: str) -> None:
    text = "Ein Satz, ohne Zahl!"
    assert spoken_form(text, language) == text


@given(st.integers(0, 10**6), st.sampled_from([*PERCENT, "zh"]))
def test_no_digit_is_left_of_a_plain_number(number: int, language: str) -> None:
    spoken = spoken_form(f"{number}", language)
    assert spoken
    assert not re.search(r"[0-9]", spoken)


@given(st.text(alphabet="0123456789.,%$€£:/-&# kmstdNo年¥2个"), st.sampled_from([*PERCENT, "zh"]))
def test_any_mixture_of_digits_and_signs_is_read(text: str, language: str) -> None:
    assert isinstance(spoken_form(text, language), str)
