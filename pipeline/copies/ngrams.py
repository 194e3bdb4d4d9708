"""Texts of evaluation sets, to be found in other texts by their n-grams.

A text of at least ``ngram`` tokens is told by each run of so many; a shorter one by the whole of it, which must then be
the whole of the other text too. Tokens are words of the normalised text, or characters where a language writes no spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from manifests.ids import digest_bytes
from pipeline.copies.recipe import DecontaminateConfig
from pipeline.copies.texts import tokens


class TextMatch(NamedTuple):
    """A text of the registry, by its number, and the part of its n-grams that was found."""

    number: int
    share: float


class RegistryTexts:
    """All texts of the registries, by number. 16 bytes an n-gram and what Python adds."""

    def __init__(self, config: DecontaminateConfig) -> None:
        self._config = config
        self._texts_of: dict[bytes, list[int]] = {}  # n-gram -> texts that have it
        self._num_ngrams = list[int]()  # distinct ones, by text

    def add(self, texts: Iterable[tuple[str | None, str | None]]) -> None:
        """(text, language), numbered on from those before. A text of too few tokens is found nowhere."""
        for text, language in texts:
            found = self._ngrams(tokens(text, language))
            for ngram in found:
                self._texts_of.setdefault(ngram, []).append(len(self._num_ngrams))
            self._num_ngrams.append(len(found))

    def match(self, text: str | None, language: str | None) -> TextMatch | None:
        """The text of the registry of which the largest part is in this one; None where none has enough."""
        counts = dict[int, int]()
        for ngram in self._ngrams(tokens(text, language)):
            for number in self._texts_of.get(ngram, ()):
                counts[number] = counts.get(number, 0) + 1
        found = (TextMatch(number, count / self._num_ngrams[number]) for number, count in sorted(counts.items()))
        best = max(found, key=lambda match: match.share, default=None)
        return best if best is not None and best.share >= self._config.least_ngram_share else None

    def _ngrams(self, words: Sequence[str]) -> set[bytes]:
        size = self._config.ngram
        if len(words) < self._config.fewest_tokens:
            return set()
        runs = [words] if len(words) < size else [words[at : at + size] for at in range(len(words) - size + 1)]
        return {digest_bytes(" ".join(run).encode()) for run in runs}
