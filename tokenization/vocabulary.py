"""The joint vocabulary: one table of id ranges and special tokens, with a hash that packs and checkpoints carry.

Ids lie in three ranges: text ids ``[0, text_size)`` of the BPE, named specials, and audio ids
``[audio_base, audio_base + num_codes)`` with the audio padding token behind them. Rows of the embedding matrix past the
last id are padding that nothing names.

A text model brings the rows below ``num_text_rows`` and no other. Its matrix may be longer (Qwen2.5-7B has 152,064 rows,
0.5B 151,936): what lies there is padding that was never trained, and gives way to specials and audio ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from manifests.errors import ContractError, MismatchError
from manifests.ids import digest_json

NUM_CODES = 3**8
ROW_MULTIPLE = 64
END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
TOOL_CALLS = ("<tool_call>", "</tool_call>")
AUDIO_WRAPPERS = ("<audio_start>", "<audio_end>", "<audio_patch>", "<audio_patch_pad>")

# The specials behind Qwen2.5's own ids, in the order of Step-Audio-2-mini's table.
SPECIALS = (
    "<|EOT|>",
    "<|BOT|>",
    "<|CALL_START|>",
    "<|CALL_END|>",
    "<|THINK_START|>",
    "<|THINK_END|>",
    "<|IMG_START|>",
    "<|IMG_END|>",
    "<|META_START|>",
    "<|META_END|>",
    "<im_patch>",
    "<im_start>",
    "<im_end>",
    "<dream>",
    "<dream_start>",
    "<dream_end>",
    "<|MASK_1e69f|>",
    "<|UNMASK_1e69f|>",
    "<video_start>",
    "<video_end>",
    "<patch_start>",
    "<patch_end>",
    "<patch_newline>",
    "<audio_start>",
    "<audio_end>",
    "<audio_patch>",
    "<audio_patch_pad>",
    "<|SC|>",
    "<tts_start>",
    "<tts_end>",
    "<tts_pad>",
)

IdArray = np.ndarray | Sequence[int]


@dataclass(frozen=True)
class Vocabulary:
    """Id ranges and specials. Equal tables have equal ``layout_hash``, on any machine.

    ``text_size``: ids below it belong to the text BPE (its own specials included). ``specials``: (token, id) in id order.
    ``num_rows``: rows of the embedding matrix, at least one past the largest id.
    """

    text_size: int
    specials: tuple[tuple[str, int], ...]
    audio_base: int
    num_codes: int
    audio_pad_id: int
    num_rows: int

    def __post_init__(self) -> None:
        ids = [number for _, number in self.specials]
        if len(set(ids)) != len(ids):
            # Only the pad may share an id: the published table pads with end-of-text and gives it no name of its own.
            raise ContractError("vocabulary: two specials share an id; give each its own")
        inside = [name for name, number in self.specials if self.audio_base <= number <= self.audio_pad_id]
        if inside or self.audio_pad_id != self.audio_base + self.num_codes or self.audio_pad_id >= self.num_rows:
            raise ContractError(
                f"vocabulary: audio ids {self.audio_base}..{self.audio_pad_id} for {self.num_codes} codes in "
                f"{self.num_rows} rows hold the specials {inside}; ranges must not meet and the rows must hold them all"
            )

    @staticmethod
    def published() -> Vocabulary:
        """The table of Step-Audio-2-mini: Qwen2.5's ids, 31 specials from 151665 on, ``<audio_0>`` = 151696, 158720 rows."""
        first = 151_665
        named = [(END_OF_TEXT, 151_643), (TOOL_CALLS[0], 151_657), (TOOL_CALLS[1], 151_658)]
        return _laid_out(first, named, first, NUM_CODES, num_rows=158_720)

    @staticmethod
    def small(text_size: int, num_codes: int = NUM_CODES) -> Vocabulary:
        """The same specials behind ``text_size`` BPE ids, with end-of-text and pad first; rows rounded up to 64."""
        own = (END_OF_TEXT, PAD, *TOOL_CALLS)
        named = [(token, text_size + place) for place, token in enumerate(own)]
        return _laid_out(text_size, named, text_size + len(own), num_codes)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return dict(self.specials)

    def special(self, token: str) -> int:
        """Id of a named special. Raises ContractError when the table has none of that name."""
        if token not in self._ids:
            raise ContractError(f"special token {token!r} is not in this vocabulary; it has {sorted(self._ids)}")
        return self._ids[token]

    @property
    def eot(self) -> int:
        """Ends a turn."""
        return self.special("<|EOT|>")

    @property
    def bot(self) -> int:
        """Begins a turn."""
        return self.special("<|BOT|>")

    @property
    def audio_start(self) -> int:
        """Opens a piece of heard audio."""
        return self.special("<audio_start>")

    @property
    def audio_end(self) -> int:
        """Closes a piece of heard audio."""
        return self.special("<audio_end>")

    @property
    def audio_patch(self) -> int:
        """Placeholder of one adaptor frame (12.5 Hz)."""
        return self.special("<audio_patch>")

    @property
    def tts_start(self) -> int:
        """Opens interleaved speech output."""
        return self.special("<tts_start>")

    @property
    def tts_end(self) -> int:
        """Closes interleaved speech output."""
        return self.special("<tts_end>")

    @property
    def tts_pad(self) -> int:
        """Fills the text places of an interleave once the text has ended."""
        return self.special("<tts_pad>")

    @property
    def end_of_text(self) -> int:
        """Ends a plain text."""
        return self.special(END_OF_TEXT)

    @property
    def pad(self) -> int:
        """Fills batches; the published table has no own pad and uses end-of-text."""
        return self._ids.get(PAD, self.end_of_text)

    @property
    def num_text_rows(self) -> int:
        """Rows that a text model knows: the BPE's and, in a small table, end-of-text, pad and tool calls."""
        return self.eot

    def known_rows(self, *, wrappers: bool) -> np.ndarray:
        """Bool ``[num_rows]``: rows of the text model; with ``wrappers`` also those that stand around heard audio, which
        are in use before speech is (stages 0 and 1). All others are drawn when the vocabulary grows."""
        known = np.arange(self.num_rows) < self.num_text_rows
        if wrappers:
            known[[self.special(token) for token in AUDIO_WRAPPERS]] = True
        return known

    @cached_property
    def layout_hash(self) -> str:
        """Hex digest over the whole table."""
        return digest_json(self.to_json())

    def check_layout(self, stated: str | None, what: str) -> None:
        """Raises MismatchError where ``what`` was made for a table of another hash, or states none."""
        if stated != self.layout_hash:
            raise MismatchError(
                f"{what} has vocabulary layout {stated}, the tokenizer here {self.layout_hash}; they must be equal: "
                "use the tokenizer it was made with"
            )

    def audio_id(self, code: int) -> int:
        """Id of ``<audio_code>``. Raises ContractError for a code outside ``[0, num_codes)``."""
        if not 0 <= code < self.num_codes:
            raise ContractError(f"code {code} has no audio id; codes are 0..{self.num_codes - 1}")
        return self.audio_base + code

    def is_audio(self, ids: IdArray) -> np.ndarray:
        """Bool mask of the ids' shape: ids that stand for a code. The audio padding token does not."""
        values = np.asarray(ids)
        return (values >= self.audio_base) & (values < self.audio_base + self.num_codes)

    def codes_of(self, ids: IdArray) -> np.ndarray:
        """uint16 ``[frames]``: the codes of the audio ids, in order; every other id is left out."""
        values = np.asarray(ids, dtype=np.int64)
        return (values[self.is_audio(values)] - self.audio_base).astype(np.uint16)

    def to_json(self, *, with_hash: bool = False) -> dict[str, Any]:
        """The whole table as JSON values; with its ``layout_hash`` ``from_json`` checks it."""
        table = {
            "text_size": self.text_size,
            "specials": dict(self.specials),
            "audio_base": self.audio_base,
            "num_codes": self.num_codes,
            "audio_pad_id": self.audio_pad_id,
            "num_rows": self.num_rows,
        }
        return {**table, "layout_hash": self.layout_hash} if with_hash else table

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Vocabulary:
        """The table of ``to_json``; a ``layout_hash`` beside it is checked. Raises MismatchError."""
        table = dict(value)
        stated = table.pop("layout_hash", None)
        try:
            table["specials"] = tuple(sorted(table["specials"].items(), key=lambda pair: pair[1]))
            vocabulary = Vocabulary(**table)
        except (KeyError, TypeError, AttributeError) as error:
            raise MismatchError(f"vocabulary table cannot be read: {error}; it needs the keys that `to_json` writes") from error
        if stated is not None and stated != vocabulary.layout_hash:
            raise MismatchError(
                f"vocabulary table has layout {vocabulary.layout_hash}, its file states {stated}; use the tokenizer it came with"
            )
        return vocabulary


def _laid_out(
    text_size: int, named: Sequence[tuple[str, int]], first: int, num_codes: int, num_rows: int | None = None
) -> Vocabulary:
    """SPECIALS from id ``first`` on, then the audio ids, then the audio padding token."""
    if not 0 < num_codes <= np.iinfo(np.uint16).max:
        raise ContractError(f"vocabulary: num_codes {num_codes}; codes are stored as uint16, so 1..65535")
    specials = [*named, *((token, first + place) for place, token in enumerate(SPECIALS))]
    audio_base = first + len(SPECIALS)
    audio_pad_id = audio_base + num_codes
    rows = num_rows or -(-(audio_pad_id + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
    return Vocabulary(text_size, tuple(specials), audio_base, num_codes, audio_pad_id, rows)
