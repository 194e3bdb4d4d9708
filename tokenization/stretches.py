"""What an example is laid out of: stretches, each of which is known before any audio or codes are read.

``turn`` is the number of a turn in its document, from 0. What stands in a stretch is filled in later: patches by the
length of the audio, an interleave by its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class TokenKind(IntEnum):
    """What a position holds; set where the example is laid out, never guessed from the id."""

    TEXT = 0
    AUDIO_CODE = 1
    TTS_PAD = 2
    AUDIO_PAD = 3
    THINKING = 4
    SPECIAL = 5


@dataclass(frozen=True)
class Fixed:
    """Ids of one kind that are known already: a prompt, a text, a special token. ``is_target``: their loss counts."""

    ids: Sequence[int]
    kind: TokenKind
    is_target: bool = False


@dataclass(frozen=True)
class Heard:
    """Audio of a turn, in pieces with a wrapper each; it never has loss."""

    turn: int


@dataclass(frozen=True)
class Spoken:
    """The interleave of a turn's text ids with its codes, without ``<tts_start>`` and ``<tts_end>``."""

    turn: int
    text_ids: Sequence[int]
    is_target: bool = True


@dataclass(frozen=True)
class Encoded:
    """Audio of a turn that the encoder alone hears: it has no position."""

    turn: int


Stretch = Fixed | Heard | Spoken | Encoded
