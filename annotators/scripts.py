"""Which writing systems a text is in, as ISO 15924 codes, from the names that Unicode gives its letters."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from typing import Any

# First word of a letter's Unicode name -> ISO 15924. Scripts of the languages that speech recognisers write.
SCRIPTS = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARMENIAN": "Armn", "GEORGIAN": "Geor", "HEBREW": "Hebr",
    "ARABIC": "Arab", "SYRIAC": "Syrc", "DEVANAGARI": "Deva", "BENGALI": "Beng", "GURMUKHI": "Guru", "GUJARATI": "Gujr",
    "ORIYA": "Orya", "TAMIL": "Taml", "TELUGU": "Telu", "KANNADA": "Knda", "MALAYALAM": "Mlym", "SINHALA": "Sinh",
    "THAI": "Thai", "LAO": "Laoo", "TIBETAN": "Tibt", "MYANMAR": "Mymr", "KHMER": "Khmr", "ETHIOPIC": "Ethi",
    "MONGOLIAN": "Mong", "HANGUL": "Hang", "HIRAGANA": "Hira", "KATAKANA": "Kana", "BOPOMOFO": "Bopo", "CJK": "Hani",
    "IDEOGRAPHIC": "Hani", "KATAKANA-HIRAGANA": "Kana", "THAANA": "Thaa", "CHEROKEE": "Cher", "TIFINAGH": "Tfng",
    "NKO": "Nkoo",
}  # fmt: skip
UNKNOWN = "Zyyy"  # ISO 15924 for undetermined
# Languages (ISO 639-1, and Cantonese) that write no spaces between words. Korean does, though its word borders are not agreed.
SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
JAPANESE = ("Hani", "Hira", "Kana")


@functools.lru_cache(maxsize=1 << 16)
def script_of(letter: str) -> str:
    """Script of one letter; Zyyy where the table has none, and for digits, whose names tell none."""
    plain = unicodedata.normalize("NFKC", letter)[0]  # fullwidth and halfwidth forms are named after their width
    return SCRIPTS.get(unicodedata.name(plain, "").split(" ")[0], UNKNOWN)


def script_counts(text: str) -> Counter[str]:
    """Letters of each script. With kana in the text, Han and kana together are Japanese (Jpan)."""
    counts = Counter(script_of(c) for c in text if unicodedata.category(c)[0] == "L")
    if counts["Hira"] or counts["Kana"]:
        counts["Jpan"] = sum(counts.pop(name, 0) for name in JAPANESE)
    return +counts


def main_script(text: str, counts: Counter[str]) -> str | None:
    """The script of most letters; None without letters, or where two have as many. Han is told into Hans and Hant."""
    ranked = counts.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return _han(text) if ranked[0][0] == "Hani" else ranked[0][0]


def _han(text: str) -> str:
    """Hans or Hant, by how many characters only one of them writes (opencc); Hani where neither has more."""
    num_traditional = _num_changed(text, "t2s")
    num_simplified = _num_changed(text, "s2t")
    if num_traditional == num_simplified:
        return "Hani"
    return "Hant" if num_traditional > num_simplified else "Hans"


def _num_changed(text: str, conversion: str) -> int:
    return sum(a != b for a, b in zip(text, _converter(conversion).convert(text), strict=False))


@functools.cache
def _converter(conversion: str) -> Any:
    import opencc

    return opencc.OpenCC(conversion)
