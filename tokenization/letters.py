"""The letters that a codec's supervision spells transcripts with: an alphabet read off the corpus, in the scorers' normal form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from manifests.scoring import scored_tokens


def normal_form(text: str) -> str:
    """Words in lower case with single spaces between them, without punctuation (``manifests.scoring.scored_tokens``)."""
    return " ".join(scored_tokens(text, None))


@dataclass(frozen=True)
class Letters:
    """An alphabet, with the space where texts have several words; label 0 is CTC's blank, ``alphabet[i]`` is label ``i + 1``."""

    alphabet: str

    @staticmethod
    def of(texts: Iterable[str]) -> Letters:
        """All characters of the texts' normal forms, sorted."""
        return Letters("".join(sorted(set().union(*(normal_form(text) for text in texts)))))

    @property
    def num_labels(self) -> int:
        """Letters and the blank."""
        return len(self.alphabet) + 1

    def labels(self, text: str) -> list[int]:
        """Labels of a text's normal form; letters that the alphabet lacks are left out."""
        places = {letter: place for place, letter in enumerate(self.alphabet, start=1)}
        return [places[letter] for letter in normal_form(text) if letter in places]

    def read(self, best: Sequence[int]) -> str:
        """Text of the best label of each frame, as CTC reads it: repeats are one, blanks none."""
        kept = [label for before, label in pairwise([0, *best]) if label and label != before]
        return " ".join("".join(self.alphabet[label - 1] for label in kept).split())


def shortest_frames(labels: Sequence[int]) -> int:
    """Frames that CTC needs at least: one a label, and a blank between equal neighbours."""
    return len(labels) + sum(left == right for left, right in pairwise(labels))
