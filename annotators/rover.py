"""ROVER: the vote of several recognisers, word by word (Fiscus, ASRU 1997).

Hypotheses are aligned one after the other into a word transition network: a row of *slots*, in each of which every
system says one token or nothing. Each slot is then decided by score(token) = alpha * N(token) / Ns + (1 - alpha) * C(token):
the share of systems that say it, and their mean confidence in it. "Nothing" stands for election too, with a confidence
that is set. Two things that the paper leaves open are fixed here: the first hypothesis is the one nearest to all others, and
what is equal in score goes to the system that is listed first.

With three systems and alpha above 3/4, two that say the same always win: what they have ahead, alpha / 3, is more than any
confidence can make up for, 1 - alpha. A system that agrees with one in the network aligns to that one's path or an
equal one, since passing a slot in which nothing was said is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Costs of sclite and of the paper's tool: a substitution is cheaper than a deletion and an insertion.
SUBSTITUTION, DELETION, INSERTION = 4, 3, 3

# Positions in the hypotheses of what each system says in one slot; -1: it says nothing.
Slot = list[int]


class Ballot(NamedTuple):
    """What one system says at one place."""

    key: str
    confidence: float | None = None


class Winner(NamedTuple):
    """A token that won its slot: score, and (system, position in its hypothesis) of everyone who said it."""

    key: str
    score: float
    said_by: tuple[tuple[int, int], ...]


def vote(systems: Sequence[Sequence[Ballot]], alpha: float, null_confidence: float) -> list[Winner]:
    """The tokens that win, in order. ``null_confidence`` is that of saying nothing, and of a token that has none.

    Time and memory grow with the product of the hypotheses' lengths: 30 s of speech take milliseconds.
    """
    network = build_network([[ballot.key for ballot in system] for system in systems])
    winners = (_winner(slot, systems, alpha, null_confidence) for slot in network)
    return [winner for winner in winners if winner is not None]


def build_network(hypotheses: Sequence[Sequence[str]]) -> list[Slot]:
    """The slots in order of time; each holds a position of every hypothesis, and each hypothesis in its own order."""
    first, *others = nearest_first(hypotheses)
    network = [_slot(len(hypotheses), {first: i}) for i in range(len(hypotheses[first]))]
    aligned = [first]
    for system in others:
        rest = iter(network)
        grown: list[Slot] = []
        for is_slot, position in align([_keys(slot, hypotheses, aligned) for slot in network], hypotheses[system]):
            slot = next(rest) if is_slot else _slot(len(hypotheses), {})
            slot[system] = position
            grown.append(slot)
        network = grown
        aligned.append(system)
    return network


def nearest_first(hypotheses: Sequence[Sequence[str]]) -> list[int]:
    """The systems by the sum of their edit distances to the others, smallest first; equal ones as listed."""
    from rapidfuzz.distance import Levenshtein

    far = [sum(Levenshtein.distance(mine, other) for other in hypotheses) for mine in hypotheses]
    return sorted(range(len(hypotheses)), key=lambda system: far[system])


def align(slots: Sequence[Sequence[str | None]], words: Sequence[str]) -> list[tuple[bool, int]]:
    """The cheapest alignment of a hypothesis to slots: (whether a slot of the network is used, position in ``words`` or -1).

    A slot matches where any system says the word. Passing a slot costs nothing where some system says nothing there.
    """
    costs = _costs(slots, words)
    steps = []
    i, j = len(slots), len(words)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (0 if words[j - 1] in slots[i - 1] else SUBSTITUTION):
            i, j = i - 1, j - 1
            steps.append((True, j))
        elif i and costs[i, j] == costs[i - 1, j] + _passing(slots[i - 1]):
            i -= 1
            steps.append((True, -1))
        else:
            j -= 1
            steps.append((False, j))
    return steps[::-1]


def _costs(slots: Sequence[Sequence[str | None]], words: Sequence[str]) -> np.ndarray:
    """Int32 ``[num_slots + 1, num_words + 1]``: cost of aligning the first i slots to the first j words."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    words_T = np.array([numbers[word] for word in words], np.int32)
    ramp = INSERTION * np.arange(len(words) + 1, dtype=np.int32)
    costs = np.empty((len(slots) + 1, len(words) + 1), np.int32)
    costs[0] = ramp
    for i, slot in enumerate(slots, 1):
        said = [numbers[key] for key in slot if key is not None and key in numbers]
        row = costs[i - 1] + _passing(slot)
        row[1:] = np.minimum(row[1:], costs[i - 1, :-1] + np.where(np.isin(words_T, said), 0, SUBSTITUTION))
        # An insertion costs the same everywhere, so the cheapest way along the row is a running minimum above a ramp.
        costs[i] = np.minimum.accumulate(row - ramp) + ramp
    return costs


def _passing(slot: Sequence[str | None]) -> int:
    return 0 if None in slot else DELETION


def _slot(num_systems: int, said: dict[int, int]) -> Slot:
    return [said.get(system, -1) for system in range(num_systems)]


def _keys(slot: Slot, hypotheses: Sequence[Sequence[str]], aligned: Sequence[int]) -> list[str | None]:
    return [hypotheses[system][slot[system]] if slot[system] >= 0 else None for system in aligned]


def _winner(slot: Slot, systems: Sequence[Sequence[Ballot]], alpha: float, null_confidence: float) -> Winner | None:
    """Who wins the slot; None where nothing does."""
    said: dict[str | None, list[tuple[int, int]]] = {}
    for system, position in enumerate(slot):
        said.setdefault(systems[system][position].key if position >= 0 else None, []).append((system, position))

    def score(key: str | None) -> float:
        confidences = [systems[system][at].confidence if at >= 0 else None for system, at in said[key]]
        mean = sum(null_confidence if c is None else c for c in confidences) / len(confidences)
        return round(alpha * len(confidences) / len(systems) + (1 - alpha) * mean, 9)  # a tie must not hang on the last bit

    best = max(said, key=score)  # the first of equals: keys stand in the order of the systems
    return None if best is None else Winner(best, score(best), tuple(said[best]))
