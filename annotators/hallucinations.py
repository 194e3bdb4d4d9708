"""Phrases that recognisers are known to write where nothing was said: credits of subtitles, closings of videos, fillers.

The list is ``phrases/hallucinations.yaml``; a phrase of any language is looked for in every text, since such text is often in
another language than the speech.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Sequence
from typing import NamedTuple

import yaml

from annotators.text_tokens import keys, tokens
from manifests.ids import digest_json

KINDS = ("credits", "closings", "fillers")
LIKE = "zh"  # tokens as in Chinese: characters of its scripts, words of all others; so one rule fits every phrase


class Phrase(NamedTuple):
    """One entry of the list; ``kind`` is one of KINDS, ``keys`` are its tokens."""

    phrase: str
    language: str
    kind: str
    keys: tuple[str, ...]


class Match(NamedTuple):
    """The longest phrase that counts, and the share of the text's tokens that lie in such phrases."""

    phrase: Phrase
    share: float


def find_hallucination(text: str, speech_s: float, most: float, little_speech_s: float) -> Match | None:
    """The listed phrase that makes a text suspicious; None where none counts.

    Credits count wherever they stand: nobody says them. Closings count where credits and closings together are at least
    the share ``most`` of the text's tokens: at the end of a longer text somebody may well have said them. Fillers count
    where the text is nothing but listed phrases and VAD heard less than ``little_speech_s`` of speech.
    """
    words = keys(tokens(text, LIKE))
    found = [(start, phrase) for start in range(len(words)) for phrase in phrases_at(words, start)]

    def match(*kinds: str) -> Match | None:
        counted = [(start, phrase) for start, phrase in found if phrase.kind in kinds]
        if not counted:
            return None
        covered = {i for start, phrase in counted for i in range(start, start + len(phrase.keys))}
        longest = max((phrase for _, phrase in counted), key=lambda phrase: len("".join(phrase.keys)))
        return Match(longest, len(covered) / len(words))

    anything, without_fillers = match(*KINDS), match("credits", "closings")
    if anything and anything.share == 1.0 and speech_s < little_speech_s:
        return anything
    if without_fillers and without_fillers.share >= most:
        return without_fillers
    return match("credits")


def phrases_at(words: Sequence[str], start: int) -> list[Phrase]:
    """Phrases whose tokens begin at ``start``."""
    candidates = _by_first_key().get(words[start], ())
    return [phrase for phrase in candidates if tuple(words[start : start + len(phrase.keys)]) == phrase.keys]


@functools.cache
def phrases() -> tuple[Phrase, ...]:
    """The list, in the order of the file."""
    listed: dict[str, dict[str, list[str]]] = yaml.safe_load(_file())
    return tuple(
        Phrase(phrase, language, kind, tuple(keys(tokens(phrase, LIKE))))
        for language, kinds in listed.items()
        for kind, entries in kinds.items()
        for phrase in entries
    )


def phrases_digest() -> str:
    """Digest of the list, for the fingerprint of who uses it."""
    return digest_json(_file())


@functools.cache
def _by_first_key() -> dict[str, tuple[Phrase, ...]]:
    by_key: dict[str, list[Phrase]] = {}
    for phrase in phrases():
        by_key.setdefault(phrase.keys[0], []).append(phrase)
    return {key: tuple(listed) for key, listed in by_key.items()}


def _file() -> str:
    return (importlib.resources.files("annotators") / "phrases" / "hallucinations.yaml").read_text(encoding="utf-8")
