"""A text as one would read it aloud: numbers, dates, money, percentages and common abbreviations in words.

Labels for speech synthesis and scoring want the words that were said, and a recogniser that writes ``$5.20`` does not say them.
Rules, not a model: a number can be read in more than one way, and where context decides, the usual reading is taken
(``1999`` is a year, ``10:05`` a time, ``555-1234`` is dialled). English has rules of its own; other languages read
numbers, percentages and money by num2words, Chinese by cn2an. Where a reading bends with what is counted (Korean, the Slavic
languages) there are no rules.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from annotators.scripts import SPACELESS
from annotators.text_normal import CHINESE, chinese_numerals

# Languages whose numbers num2words reads right, with the word for %.
PERCENT = {
    "en": "percent", "de": "Prozent", "fr": "pour cent", "es": "por ciento", "it": "per cento", "pt": "por cento",
    "nl": "procent", "fi": "prosenttia", "id": "persen", "sv": "procent", "da": "procent", "ja": "パーセント",
}  # fmt: skip
DECIMAL_POINT = frozenset({"en", "ja"})  # the others write 1.234,5
MONEY_LANGUAGES = frozenset({"de", "fr", "es", "it", "pt", "fi"})  # where num2words has dollars, pounds and euros right
CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP"}

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH = "|".join(rf"{month}|{month[:3]}\.?" if len(month) > 3 else month for month in MONTHS) + r"|Sept\.?"
ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "vs": "versus", "etc": "et cetera",
    "e.g": "for example", "i.e": "that is", "approx": "approximately", "jr": "junior", "sr": "senior",
}  # fmt: skip
UNITS = {
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "kg": "kilograms", "mg": "milligrams",
    "mph": "miles per hour", "km/h": "kilometers per hour", "°C": "degrees Celsius", "°F": "degrees Fahrenheit",
    "Hz": "hertz", "kHz": "kilohertz", "MB": "megabytes", "GB": "gigabytes",
}  # fmt: skip
SCALES = "hundred|thousand|million|billion|trillion"

ABBREVIATION = re.compile(rf"\b({'|'.join(re.escape(a) for a in ABBREVIATIONS)})\.(?!\w)", re.IGNORECASE)
NUMBER_SIGN = re.compile(r"\b(?:No\. ?|#)(?=[0-9])")
NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?"
ISO_DATE = re.compile(r"\b([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\b")
MONTH_DAY = re.compile(rf"\b({MONTH}) ([0-9]{{1,2}})(?:st|nd|rd|th)?\b(?!,?[0-9])")
TIME = re.compile(r"\b([01]?[0-9]|2[0-3]):([0-5][0-9])\b(?!:)")
MONEY = re.compile(rf"(?<!\w)([$€£]) ?({NUMBER})(?: ({SCALES})\b)?")
ORDINAL = re.compile(r"\b([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:st|nd|rd|th)\b")
UNIT = re.compile(rf"(?<![\w.])({NUMBER}) ?({'|'.join(re.escape(u) for u in sorted(UNITS, key=len, reverse=True))})(?!\w)")
DIALLED = re.compile(r"(?<![\w.,-])(?:(?:[0-9]{3}-)?[0-9]{3}-[0-9]{4}|0[0-9]+|[0-9]{9,})(?![\w-]|[.,][0-9])")
RANGE = re.compile(r"(?<=[0-9]) ?[-–] ?(?=[0-9])")
ENGLISH_NUMBER = re.compile(rf"(?<![\w.])(-?)({NUMBER})( ?%)?(?!\w)")
YEAR = re.compile(r"1[1-9][0-9][0-9]|20[0-9][0-9]")
DECADE = re.compile(r"\b(1[1-9]|20)([0-9])0s\b")

CHINESE_TWO = re.compile(r"(?<![0-9.第])2(?=[个只条张块瓶杯份本辆台匹头位亩件次点天岁])")
CHINESE_TIME = re.compile(r"(?<![0-9])([01]?[0-9]|2[0-3]):([0-5][0-9])(?!:|[0-9])")
CHINESE_MONEY = re.compile(r"[¥￥]([0-9][0-9,]*(?:\.[0-9]+)?[万亿]?)")


def spoken_form(text: str, language: str | None) -> str | None:
    """The text in spoken form; what no rule covers is unchanged.

    None where the language has no rules here, and for an English number that has no name (num2words knows them to 10^306):
    it is a recogniser's loop, which nobody has said.
    """
    if language == "en":
        try:
            return _english(text)
        except OverflowError:
            return None
    if language in CHINESE:
        return _chinese(text)
    return _numbers(text, language) if language in PERCENT else None


def _english(text: str) -> str:
    text = ABBREVIATION.sub(lambda m: _abbreviated(m[1]), text)
    text = re.sub(r"(?<=\w) ?& ?(?=\w)", " and ", NUMBER_SIGN.sub("number ", text))
    text = ISO_DATE.sub(lambda m: f"{MONTHS[int(m[2]) - 1]} {_ordinal(int(m[3]))}, {_year(int(m[1]))}", text)
    text = MONTH_DAY.sub(lambda m: f"{_month(m[1])} {_ordinal(int(m[2]))}", text)
    text = TIME.sub(lambda m: _time(int(m[1]), int(m[2])), text)
    text = MONEY.sub(lambda m: _money(m[1], m[2], m[3]), text)
    text = ORDINAL.sub(lambda m: _ordinal(int(m[1].replace(",", ""))), text)
    text = DECADE.sub(lambda m: _decade(int(m[1] + m[2] + "0")), text)
    text = UNIT.sub(lambda m: f"{_cardinal(m[1])} {_unit(m[1], m[2])}", text)
    text = DIALLED.sub(lambda m: " ".join(_cardinal(digit) for digit in m[0] if digit != "-"), text)
    text = RANGE.sub(" to ", text)
    return ENGLISH_NUMBER.sub(lambda m: _english_number(*m.groups()), text)


def _english_number(sign: str, digits: str, percent: str | None) -> str:
    if YEAR.fullmatch(digits) and not (sign or percent):
        return _year(int(digits))
    return ("minus " if sign else "") + _cardinal(digits) + (" percent" if percent else "")


def _abbreviated(written: str) -> str:
    word = ABBREVIATIONS[written.lower()]
    return word.capitalize() if written[0].isupper() else word


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name[:3]))


def _time(hour: int, minute: int) -> str:
    if minute == 0:
        return f"{_cardinal(str(hour))} o'clock" if hour <= 12 else f"{_cardinal(str(hour))} hundred"
    return f"{_cardinal(str(hour))} {'oh ' if minute < 10 else ''}{_cardinal(str(minute))}"


def _money(sign: str, digits: str, scale: str | None) -> str:
    if scale:  # $2.5 million: two point five million dollars
        name = {"$": "dollars", "€": "euros", "£": "pounds"}[sign]
        return f"{_cardinal(digits)} {scale} {name}"
    return _amount(float(digits.replace(",", "")), sign, "en")


def _unit(digits: str, unit: str) -> str:
    return re.sub(r"s\b", "", UNITS[unit], count=1) if digits == "1" else UNITS[unit]


def _cardinal(digits: str) -> str:
    # num2words writes "one thousand, two hundred"; the comma is not said.
    return str(_num2words(Decimal(digits.replace(",", "")), "en")).replace(",", "")


def _ordinal(number: int) -> str:
    return str(_num2words(number, "en", to="ordinal")).replace(",", "")


def _year(number: int) -> str:
    return str(_num2words(number, "en", to="year"))


def _decade(year: int) -> str:
    word = _year(year)
    return word[:-1] + "ies" if word.endswith("y") else word + "s"


def _chinese(text: str) -> str:
    text = CHINESE_MONEY.sub(r"\1元", text)
    text = CHINESE_TIME.sub(lambda m: f"{int(m[1])}点{_chinese_minute(m[2])}", text)
    return chinese_numerals(CHINESE_TWO.sub("两", text))


def _chinese_minute(minute: str) -> str:
    if minute == "00":
        return "整"
    return f"零{minute[1]}分" if minute[0] == "0" else f"{minute}分"


def _numbers(text: str, language: str) -> str:
    """Money, percentages and numbers of a language that num2words reads."""
    point, comma = (r"\.", ",") if language in DECIMAL_POINT else (",", r"[.\u00a0\u202f ]")
    digits = rf"[0-9]{{1,3}}(?:{comma}[0-9]{{3}}){{1,4}}(?:{point}[0-9]+)?|[0-9]{{1,15}}(?:{point}[0-9]+)?"

    def value(written: str) -> int | float:
        plain = re.sub(comma, "", written).replace(point[-1], ".")
        return float(plain) if "." in plain else int(plain)

    gap = "" if language in SPACELESS else " "

    def read(found: re.Match[str]) -> str:
        sign, number, percent = found.groups()
        # The others read a year as any number.
        is_year = language == "de" and YEAR.fullmatch(number) and not (sign or percent)
        words = str(_num2words(-value(number) if sign else value(number), language, to="year" if is_year else "cardinal"))
        return words + gap + PERCENT[language] if percent else words

    if language in MONEY_LANGUAGES:
        before, after = rf"(?<!\w)([$€£]) ?({digits})(?![0-9])", rf"(?<![\w.,])({digits}) ?([$€£])"
        text = re.sub(before, lambda m: _amount(value(m[2]), m[1], language), text)
        text = re.sub(after, lambda m: _amount(value(m[1]), m[2], language), text)
    # A number glued to letters (MP3, 4K, 3rd) is a name or an ordinal: it stays, except where words have no spaces.
    first, last = (r"(?<![0-9.])()", "(?![0-9])") if language in SPACELESS else (r"(?<![\w.,])(-?)", r"(?!\w)")
    return re.sub(rf"{first}({digits})( ?%)?{last}", read, text)


def _amount(value: float, sign: str, language: str) -> str:
    """An amount of money in words; cents are not said where there are none."""
    options: dict[str, Any] = {"to": "currency", "currency": CURRENCIES[sign]}
    value = round(value, 2)
    if value == int(value):
        words = str(_num2words(float(value), language, separator="|", **options)).split("|")[0].strip()
    else:
        words = str(_num2words(value, language, **options | ({"separator": " and"} if language == "en" else {})))
    # num2words writes "one thousand, two hundred euro" and "pounds sterling".
    return re.sub(r"euro\b", "euros", words.replace(",", "").replace(" sterling", "")) if language == "en" else words


def _num2words(value: Any, language: str, **options: Any) -> Any:
    import num2words

    return num2words.num2words(value, lang=language, **options)
