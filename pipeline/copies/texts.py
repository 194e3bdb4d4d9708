"""Texts that are the same: MinHash and locality-sensitive hashing by datasketch, over normalised texts.

Texts that are equal in normal form are one; the distinct ones are shingled, hashed, and pairs that hashing proposes are
compared shingle by shingle. All distinct texts are in memory, with some 3 kB each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from annotators.scripts import SPACELESS
from annotators.text_normal import normalised

SHINGLE_CHARS = 5
SPACELESS_SHINGLE_CHARS = 2  # a character is a word or half of one
FEWEST_TOKENS = 4  # a shorter text is said by everybody
NUM_PERM = 128


class SameText(NamedTuple):
    """Two clips, by their numbers, whose texts are alike."""

    left: int
    right: int
    similarity: float


def tokens(text: str | None, language: str | None) -> list[str]:
    """Words of the normalised text, or its characters in a language that writes no spaces (and in Korean); empty without text."""
    form = normalised(text, language) if text else ""
    return list(form.replace(" ", "")) if language in SPACELESS or language == "ko" else form.split()


def same_texts(texts: Sequence[str | None], languages: Sequence[str | None], least_similarity: float) -> list[SameText]:
    """Pairs of at least that Jaccard similarity of shingles; of equal texts, each with the first that has it."""
    from datasketch import MinHash, MinHashLSH

    pairs, first = list[SameText](), dict[str, int]()
    shingles = dict[int, frozenset[str]]()
    for number, (text, language) in enumerate(zip(texts, languages, strict=True)):
        words = tokens(text, language)
        if len(words) < FEWEST_TOKENS:
            continue
        form = " ".join(words)
        if form in first:
            pairs.append(SameText(first[form], number, 1.0))
            continue
        first[form] = number
        is_spaceless = all(len(word) == 1 for word in words)
        shingles[number] = frozenset(
            _ngrams("".join(words), SPACELESS_SHINGLE_CHARS) if is_spaceless else _ngrams(form, SHINGLE_CHARS)
        )
    # Recall counts for more than candidates: those are checked.
    index = MinHashLSH(threshold=least_similarity, num_perm=NUM_PERM, weights=(0.1, 0.9))
    for number, parts in shingles.items():
        (sketch,) = MinHash.bulk([[part.encode() for part in parts]], num_perm=NUM_PERM)
        for other in index.query(sketch):
            similarity = len(parts & shingles[other]) / len(parts | shingles[other])
            if similarity >= least_similarity:
                pairs.append(SameText(other, number, similarity))
        index.insert(number, sketch)
    return sorted(pairs)


def _ngrams(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(max(1, len(text) - size + 1)))
