"""Reading short sentences (conditions, rules) word by word: what was expected is said with the place of the error."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from manifests.errors import RequestError

# A word may hold what values hold that nobody wants to quote: CC-BY-4.0, s3://bucket/key.
TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
  | (?P<text>'(?:[^']|'')*')
  | (?P<column>"(?:[^"]|"")*")
  | (?P<word>\w(?:[\w.:/+-]*[\w/+])?)
  | (?P<sign><=|>=|==|!=|<>|[=<>(),:])
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    """``kind`` is number, text, column, word, sign or end; ``value`` is without quotes; ``at`` counts characters from 0."""

    kind: str
    value: str
    at: int

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words (lower case), however it is written."""
        return self.kind == "word" and self.value.lower() in words

    def is_sign(self, *signs: str) -> bool:
        return self.kind == "sign" and self.value in signs


class Sentence:
    """The tokens of a text, one after the other. Raises RequestError where a character begins none of them."""

    def __init__(self, text: str, what: str) -> None:
        """``what`` names the text in errors, e.g. ``--where``."""
        self.text, self._what = text, what
        self._tokens, at = list[Token](), 0
        end = len(text.rstrip())
        while at < end:
            found = TOKEN.match(text, at)
            if found is None or not found.lastgroup:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise self.error("a word, a number or a text in '…'", Token("sign", text[at], at))
            kind = found.lastgroup
            raw = found[kind]
            self._tokens.append(Token(kind, _unquoted(kind, raw), found.start(kind)))
            at = found.end()
        self._tokens.append(Token("end", "", end))
        self._next = 0

    @property
    def token(self) -> Token:
        """The next token, which stays."""
        return self._tokens[self._next]

    @property
    def after(self) -> Token:
        """The one behind it."""
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def take(self) -> Token:
        """The next token."""
        found = self.token
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return found

    def skip_word(self, *words: str) -> str | None:
        """Takes the next token where it is one of these words, and returns it in lower case."""
        return self.take().value.lower() if self.token.is_word(*words) else None

    def skip_sign(self, *signs: str) -> str | None:
        return self.take().value if self.token.is_sign(*signs) else None

    def expect_word(self, word: str) -> None:
        if self.skip_word(word) is None:
            raise self.error(f"{word!r}")

    def expect_sign(self, sign: str) -> None:
        if self.skip_sign(sign) is None:
            raise self.error(f"{sign!r}")

    def expect_number(self) -> float:
        if self.token.kind != "number":
            raise self.error("a number")
        return float(self.take().value)

    def expect_name(self, what: str = "the name of a column") -> str:
        if self.token.kind not in ("word", "column"):
            raise self.error(what)
        return self.take().value

    def expect_end(self, expected: str = "the end") -> None:
        if self.token.kind != "end":
            raise self.error(expected)

    def error(self, expected: str, token: Token | None = None) -> RequestError:
        """To be raised: what was expected, what stands there instead, and where."""
        found = token or self.token
        there = "it ends" if found.kind == "end" else f"there is {found.value!r}"
        return RequestError(f"{self._what} {self.text!r}: expected {expected} at character {found.at + 1}, and {there}")


def _unquoted(kind: str, raw: str) -> str:
    """Quotes off; a doubled one inside stands for itself, as in SQL."""
    unquote: dict[str, Callable[[str], str]] = {
        "text": lambda quoted: quoted[1:-1].replace("''", "'"),
        "column": lambda quoted: quoted[1:-1].replace('""', '"'),
    }
    return unquote.get(kind, str)(raw)
