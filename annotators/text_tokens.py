"""Tokens of a text that two transcripts share: words, or characters where a language has no agreed words.

A token has a *key*, by which it is compared, and a *surface*, by which it is written: joined with their gaps, the surfaces
are the text again, spaces aside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from annotators.scripts import SPACELESS, script_of
from annotators.text_normal import CHINESE, simplified

CHARACTER_LANGUAGES = SPACELESS | {"ko"}
# Scripts whose every character is a token in those languages; a Latin word among them stays a word.
CHARACTER_SCRIPTS = frozenset({"Hani", "Hira", "Kana", "Hang", "Bopo", "Thai", "Laoo", "Mymr", "Khmr"})
APOSTROPHES = "'’"


class Token(NamedTuple):
    """``key``: NFKC, lower case, no punctuation, in Chinese simplified. ``surface``: as written, with the punctuation around
    it. ``gap``: a space where one follows."""

    key: str
    surface: str
    gap: str = " "


def tokens(text: str, language: str | None) -> list[Token]:
    """The tokens of a text in order. Punctuation belongs to the token before it, at the start of a word to the first in it."""
    found: list[Token] = []
    for piece in text.split():
        starts = _starts(piece, by_character=language in CHARACTER_LANGUAGES)
        if not starts:
            if found:  # a dash or a note on its own
                found[-1] = found[-1]._replace(surface=found[-1].surface + piece)
            continue
        edges = [0, *starts[1:], len(piece)]
        found += [Token(_key(piece[start:end], language), piece[start:end], "") for start, end in pairwise(edges)]
        found[-1] = found[-1]._replace(gap=" ")
    if found and language in SPACELESS and _is_character(found[-1].key[:1]):
        found[-1] = found[-1]._replace(gap="")  # where the text ended says nothing of what another text writes next
    return found


def written(parts: Sequence[Token]) -> str:
    """The tokens as a text."""
    return "".join(token.surface + token.gap for token in parts).strip()


def keys(parts: Iterable[Token]) -> list[str]:
    """What the tokens are compared by."""
    return [token.key for token in parts]


def _is_character(c: str) -> bool:
    return c != "" and script_of(c) in CHARACTER_SCRIPTS


def _key(surface: str, language: str | None) -> str:
    kept = "".join(c for c in surface if c in APOSTROPHES or unicodedata.category(c)[0] in "LNM")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kept).lower())
    key = folded.replace("’", "'").strip("'")
    return simplified(key) if language in CHINESE and not key.isascii() else key


def _starts(piece: str, *, by_character: bool) -> list[int]:
    """Where the tokens of a piece without spaces start: at a letter or digit after a border, or, by character, at each one."""
    starts, is_inside = [], False
    for i, c in enumerate(piece):
        kind = unicodedata.category(c)[0]
        if kind in "LN":
            is_own = by_character and _is_character(c)
            if is_own or not is_inside:
                starts.append(i)
            is_inside = not is_own
        elif kind != "M" and not (c in APOSTROPHES and is_inside):
            is_inside = False
    return starts
