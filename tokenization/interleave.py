"""Text and audio ids in one stream at a fixed ratio, as Step-Audio 2 emits speech ("TA4": one text id, four audio ids).

A group is ``ratio.text`` text places followed by ``ratio.audio`` audio places. With T text ids and A codes there are
``G = max(ceil(T / ratio.text), ceil(A / ratio.audio))`` groups; text places past T hold ``<tts_pad>``, audio places past A
hold the audio padding token. Both streams start in the first group, and the last group is always whole: the published
server pads audio by G - A only, which breaks when the text is the longer (reference §1.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests.errors import ContractError, RequestError
from tokenization.stretches import TokenKind
from tokenization.vocabulary import IdArray, Vocabulary


@dataclass(frozen=True)
class Ratio:
    """Text ids to audio ids in one group."""

    text: int = 1
    audio: int = 4

    def __post_init__(self) -> None:
        if self.text < 1 or self.audio < 1:
            raise RequestError(f"interleave ratio {self.text}:{self.audio}; both sides must be at least 1, e.g. 1:4")

    @staticmethod
    def parse(text: str) -> Ratio:
        """From ``"1:4"``. Raises RequestError."""
        left, colon, right = text.partition(":")
        if not (colon and left.strip().isdecimal() and right.strip().isdecimal()):
            raise RequestError(f"interleave ratio {text!r} is not TEXT:AUDIO; write it like 1:4")
        return Ratio(int(left), int(right))

    def __str__(self) -> str:
        return f"{self.text}:{self.audio}"

    @property
    def group(self) -> int:
        """Positions in a group."""
        return self.text + self.audio

    def num_groups(self, num_text: int, num_codes: int) -> int:
        """Groups that hold that many text ids and codes."""
        return max(-(-num_text // self.text), -(-num_codes // self.audio))


DEFAULT_RATIO = Ratio()


def interleave(
    text_ids: IdArray, codes: IdArray, vocabulary: Vocabulary, ratio: Ratio = DEFAULT_RATIO
) -> tuple[np.ndarray, np.ndarray]:
    """(int64 ids, uint8 of ``TokenKind``), both ``[G * ratio.group]``: what stands between ``<tts_start>`` and ``<tts_end>``.

    ``text_ids``: BPE ids ``[T]``, each below ``text_size``. ``codes``: ``[A]``, each below ``num_codes``. Raises
    ContractError for an id or a code outside its range.
    """
    text = np.asarray(text_ids, dtype=np.int64)
    audio = np.asarray(codes, dtype=np.int64)
    _check_range(text, vocabulary.text_size, "text id")
    _check_range(audio, vocabulary.num_codes, "code")
    groups = ratio.num_groups(len(text), len(audio))
    ids = np.empty((groups, ratio.group), dtype=np.int64)
    what = np.empty((groups, ratio.group), dtype=np.uint8)
    streams = (
        (slice(0, ratio.text), text, vocabulary.tts_pad, TokenKind.TEXT, TokenKind.TTS_PAD),
        (
            slice(ratio.text, None),
            audio + vocabulary.audio_base,
            vocabulary.audio_pad_id,
            TokenKind.AUDIO_CODE,
            TokenKind.AUDIO_PAD,
        ),
    )
    for places, values, pad, kind, pad_kind in streams:
        shape = ids[:, places].shape
        missing = shape[0] * shape[1] - len(values)
        ids[:, places] = np.pad(values, (0, missing), constant_values=pad).reshape(shape)
        what[:, places] = np.repeat([kind, pad_kind], [len(values), missing]).reshape(shape)
    return ids.reshape(-1), what.reshape(-1)


def kinds(ids: IdArray, vocabulary: Vocabulary, ratio: Ratio = DEFAULT_RATIO) -> np.ndarray:
    """uint8 ``[T]`` of ``TokenKind`` for an interleave without ``<tts_start>`` and ``<tts_end>``.

    Raises ContractError when the ids are no interleave at this ratio: a broken last group, an id in the wrong place, or
    one that comes after its stream was padded.
    """
    values = np.asarray(ids, dtype=np.int64)
    if len(values) % ratio.group:
        raise ContractError(f"interleave has {len(values)} ids; at {ratio} it must be a multiple of {ratio.group}")
    in_text = np.tile(np.arange(ratio.group) < ratio.text, len(values) // ratio.group)
    is_audio, is_text = vocabulary.is_audio(values), (values >= 0) & (values < vocabulary.text_size)
    is_tts_pad, is_audio_pad = values == vocabulary.tts_pad, values == vocabulary.audio_pad_id
    wrong = np.flatnonzero(np.where(in_text, ~(is_text | is_tts_pad), ~(is_audio | is_audio_pad)))
    if len(wrong):
        place = "text" if in_text[wrong[0]] else "audio"
        raise ContractError(
            f"interleave holds id {values[wrong[0]]} at position {wrong[0]}; at {ratio} that place is for {place}"
        )
    for stream, padded in ((in_text, is_tts_pad), (~in_text, is_audio_pad)):
        pads = padded[stream]
        if np.any(pads[:-1] & ~pads[1:]):
            raise ContractError("interleave goes on after its padding began; padding stands at the end of each stream only")
    found = np.where(in_text, TokenKind.TEXT, TokenKind.AUDIO_CODE)
    found[is_tts_pad], found[is_audio_pad] = TokenKind.TTS_PAD, TokenKind.AUDIO_PAD
    return found.astype(np.uint8)


def deinterleave(ids: IdArray, vocabulary: Vocabulary, ratio: Ratio = DEFAULT_RATIO) -> tuple[list[int], np.ndarray]:
    """(text ids, codes uint16 ``[A]``): the exact inverse of ``interleave``. Raises ContractError as ``kinds`` does."""
    values = np.asarray(ids, dtype=np.int64)
    what = kinds(values, vocabulary, ratio)
    text: Sequence[int] = values[what == TokenKind.TEXT].tolist()
    return list(text), vocabulary.codes_of(values)


def _check_range(values: np.ndarray, size: int, what: str) -> None:
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < size:
        worst = int(values.min()) if values.min() < 0 else int(values.max())
        raise ContractError(f"interleave: {what} {worst} is outside 0..{size - 1}; use the tokenizer of this vocabulary")
