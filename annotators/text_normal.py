"""Text in one normal form, in which two transcripts of the same words are the same string.

This is the field's convention, for comparing and filtering labels: recognisers write "twenty one" or "21", "colour" or
"color", and mean the same. ``manifests.scoring.scored_tokens`` is the plain rule by which reports count errors: it changes
no word, needs no library, and so cannot call a wrong word right. Error rates of the two differ and are never mixed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import unicodedata
import warnings
from typing import Any

from annotators.scripts import SPACELESS
from manifests.errors import ModelUnavailable

CHINESE = frozenset({"zh", "yue"})
LATIN = r"[a-z0-9'\u00df-\u024f\u1e00-\u1eff]"
LATIN_GAP = re.compile(rf"(?<={LATIN}) (?={LATIN})")
# From here on a run of digits is a number to be dialled, not counted; so is one that begins with zero.
DIALLED_DIGITS = 9
DIGIT_RUN = re.compile(r"(?<![0-9.,])[0-9]+(?![.,]?[0-9])")
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")
# Characters that are read as another: 两 and 二 are both 2, 〇 and 零 both 0, 幺 is how one is dialled.
SAME_NUMERAL = str.maketrans({"两": "二", "〇": "零", "幺": "一"})


def normalised(text: str, language: str | None) -> str:
    """The normal form of a text; empty where nothing but marks and spaces was there.

    English: Whisper's EnglishTextNormalizer (Radford et al. 2022, appendix C): American spelling, numbers as digits,
    contractions written out, fillers (um, mhm) and what stands in brackets left out. It reads every ``'s`` as "is".

    Chinese and Cantonese: NFKC; traditional characters to simplified (opencc t2s); numbers, dates, fractions and percentages
    in digits to numerals as they are read (``chinese_numerals``); 两 to 二, 〇 to 零, 幺 to 一; lower case; punctuation and
    spaces out, but for one space between two Latin words.

    Any other language: NFKC, lower case, one space for marks and symbols, as Whisper's BasicTextNormalizer does it; with
    combining marks kept, which are vowels in the scripts of India, and with what stands in brackets. Without spaces where
    the language writes none.
    """
    if language == "en":
        form = str(_english()(text)).strip()
        return form if any(map(str.isalnum, form)) else ""  # it leaves the dots of an ellipsis
    if language in CHINESE:
        # Numbers come before punctuation: 12.5 and 30% are read with their marks.
        read = chinese_numerals(simplified(unicodedata.normalize("NFKC", text)))
        return _without_gaps(_words(read).translate(SAME_NUMERAL))
    words = _words(text)
    return _without_gaps(words) if language in SPACELESS else words


def table_versions(*others: str) -> dict[str, str]:
    """Versions of the packages whose tables make the normal form, and of others: what a fingerprint must cover.

    Raises ModelUnavailable where one is not installed.
    """
    packages = ("cn2an", "opencc", "whisper-normalizer", *others)
    try:
        return {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelUnavailable(
            f"package {error.name!r} is not installed; install the versions in constraints.txt with the extra `annotators`"
        ) from error


def chinese_numerals(text: str) -> str:
    """Numbers in digits as Chinese numerals: 12.5 十二点五, 30% 百分之三十, 2021年 二零二一年, 1/2 二分之一.

    Runs of nine digits and more, and those that begin with zero, are read digit by digit. A number that cn2an cannot
    read stays as it is.
    """
    import cn2an

    dialled = DIGIT_RUN.sub(lambda run: _dialled(run[0]), THOUSANDS.sub("", text))
    if not re.search(r"[0-9]", dialled):  # cn2an would search it for every kind of number in turn
        return dialled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what it leaves as it is
        return str(cn2an.transform(dialled, "an2cn"))


def _dialled(run: str) -> str:
    """A run of digits as one would dial it, if one would."""
    return run.translate(DIGITS) if len(run) >= DIALLED_DIGITS or (run[0] == "0" and len(run) > 1) else run


def _words(text: str) -> str:
    """NFKC, lower case, one space for every run of punctuation, symbols, separators and control characters."""
    # Lower case may compose anew (J with a caron has no single capital), so it is normalised before and after.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("’", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] not in "PSCZ" else " " for c in folded)
    words = " ".join(word for part in kept.split() if (word := part.strip("'")))
    return unicodedata.normalize("NFKC", words)  # what stood apart may compose now


def _without_gaps(text: str) -> str:
    """Spaces out, except between two Latin words."""
    return unicodedata.normalize("NFKC", LATIN_GAP.sub("\0", text).replace(" ", "").replace("\0", " "))


@functools.cache
def _english() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def simplified(text: str) -> str:
    """Traditional characters as simplified ones, the rest as it is."""
    return str(_traditional_to_simplified().convert(text))


@functools.cache
def _traditional_to_simplified() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
