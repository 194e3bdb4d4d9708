"""Conditions on rows, as ``--where`` and rules take them: ``language = 'zh' and (dnsmos_ovrl < 2.5 or asr.text is null)``.

    condition  := all {"or" all}              all := one {"and" one}
    one        := "not" one | "(" condition ")" | COLUMN test
    test       := ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") VALUE
                | ["not"] "between" VALUE "and" VALUE | ["not"] "in" "(" VALUE {"," VALUE} ")"
                | ["not"] "like" VALUE | "is" ["not"] "null"
    VALUE      := NUMBER | 'text' | text of one word | true | false

Columns are named in full or by their last part (``manifests.rows.resolve``). As in SQL, a comparison with null is neither
true nor false, and a row is taken where the condition is true. ``like`` knows ``%`` and ``_``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import RequestError
from manifests.grammar import Sentence, Token
from manifests.rows import Rows, resolve

Value = float | str | bool | bytes | int
OPERATORS: dict[str, Callable[[pa.ChunkedArray, pa.Scalar], pa.ChunkedArray]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
SPELLINGS = {"==": "=", "<>": "!="}
TEST_WORDS = ("between", "in", "like", "is", "not")


class Condition(Protocol):
    """What is true, false or unknown of each row. Picklable."""

    @property
    def columns(self) -> Sequence[str]:
        """Full names of the columns that it reads."""

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Bool a row; null where it is unknown."""


@dataclass(frozen=True)
class Compare:
    column: str
    operator: str
    value: Value

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return OPERATORS[self.operator](table[self.column], _scalar(self.value))


@dataclass(frozen=True)
class OneOf:
    column: str
    values: tuple[Value, ...]

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return reduce(pc.or_kleene, (pc.equal(table[self.column], _scalar(value)) for value in self.values))


@dataclass(frozen=True)
class Like:
    column: str
    pattern: str

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.match_like(table[self.column], self.pattern)


@dataclass(frozen=True)
class IsNull:
    column: str

    @property
    def columns(self) -> Sequence[str]:
        return (self.column,)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.is_null(table[self.column])


@dataclass(frozen=True)
class Not:
    inner: Condition

    @property
    def columns(self) -> Sequence[str]:
        return self.inner.columns

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return pc.invert(self.inner.mask(table))


@dataclass(frozen=True)
class Joined:
    """Several conditions with ``and`` or ``or`` between them."""

    word: str
    inner: tuple[Condition, ...]

    @property
    def columns(self) -> Sequence[str]:
        return tuple(dict.fromkeys(name for condition in self.inner for name in condition.columns))

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        return reduce(pc.and_kleene if self.word == "and" else pc.or_kleene, (c.mask(table) for c in self.inner))


def parse_condition(text: str, rows: Rows, what: str = "condition") -> Condition:
    """The condition over the columns of ``rows``. Raises RequestError at what cannot be read, or names no column."""
    sentence = Sentence(text, what)
    found = read_condition(sentence, rows)
    sentence.expect_end("'and', 'or' or the end")
    return found


def read_condition(sentence: Sentence, rows: Rows) -> Condition:
    """The longest condition that the sentence goes on with; what is behind it stays."""
    return _joined(sentence, rows, "or", lambda: _joined(sentence, rows, "and", lambda: _one(sentence, rows)))


def _joined(sentence: Sentence, rows: Rows, word: str, read: Callable[[], Condition]) -> Condition:
    found = [read()]
    while sentence.skip_word(word):
        found.append(read())
    return found[0] if len(found) == 1 else Joined(word, tuple(found))


def _one(sentence: Sentence, rows: Rows) -> Condition:
    if sentence.skip_word("not"):
        return Not(_one(sentence, rows))
    if sentence.skip_sign("("):
        inner = read_condition(sentence, rows)
        sentence.expect_sign(")")
        return inner
    column = resolve(rows, sentence.expect_name())
    kind = rows.schema.field(column).type
    if sign := sentence.skip_sign(*OPERATORS, *SPELLINGS):
        return Compare(column, SPELLINGS.get(sign, sign), _value(sentence, column, kind))
    if sentence.skip_word("is"):
        denied = sentence.skip_word("not")
        sentence.expect_word("null")
        return Not(IsNull(column)) if denied else IsNull(column)
    denied = sentence.skip_word("not")
    found = _range_or_set(sentence, column, kind)
    return Not(found) if denied else found


def _range_or_set(sentence: Sentence, column: str, kind: pa.DataType) -> Condition:
    if sentence.skip_word("between"):
        low = _value(sentence, column, kind)
        sentence.expect_word("and")
        return Joined("and", (Compare(column, ">=", low), Compare(column, "<=", _value(sentence, column, kind))))
    if sentence.skip_word("in"):
        sentence.expect_sign("(")
        values = [_value(sentence, column, kind)]
        while sentence.skip_sign(","):
            values.append(_value(sentence, column, kind))
        sentence.expect_sign(")")
        return OneOf(column, tuple(values))
    if sentence.skip_word("like"):
        pattern = _value(sentence, column, kind)
        if not isinstance(pattern, str):
            raise RequestError(f"column {column!r} holds {kind}; like is for text")
        return Like(column, pattern)
    raise sentence.error(f"a comparison, {', '.join(map(repr, TEST_WORDS))}")


def _value(sentence: Sentence, column: str, kind: pa.DataType) -> Value:
    """The next value, as the column holds it. Raises RequestError where the column holds no such thing."""
    token = sentence.token
    if token.kind not in ("number", "text", "word"):
        raise sentence.error("a number, a text in '…' or a word")
    value = _fitting(token, kind)
    if value is None:
        raise RequestError(
            f"column {column!r} holds {_told(kind)}; {token.value!r} at character {token.at + 1} of {sentence.text!r} is not one"
        )
    sentence.take()
    return value


def _fitting(token: Token, kind: pa.DataType) -> Value | None:
    if pa.types.is_boolean(kind):
        return token.value.lower() == "true" if token.is_word("true", "false") else None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        # An id larger than 2^53 is no float.
        return None if token.kind != "number" else int(token.value) if token.value.isdigit() else float(token.value)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return token.value if token.kind in ("text", "word") else None
    if pa.types.is_fixed_size_binary(kind) and len(token.value) == 2 * kind.byte_width:
        try:
            return bytes.fromhex(token.value)
        except ValueError:
            return None
    return None


def _told(kind: pa.DataType) -> str:
    """What a column holds, and how its values are written."""
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "numbers"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text (in '…' where it is not one word)"
    if pa.types.is_fixed_size_binary(kind):
        return f"ids ({2 * kind.byte_width} hexadecimal digits)"
    return f"{kind}, of which only null can be asked"


def _scalar(value: Value) -> pa.Scalar:
    return pa.scalar(value, pa.binary(len(value))) if isinstance(value, bytes) else pa.scalar(value)
