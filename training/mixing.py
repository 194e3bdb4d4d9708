"""Tasks by their shares of tokens, exactly: what a task has been given follows its share within one longest document.

Whose turn it is, is decided as in weighted fair queueing with eligibility (Bennett and Zhang, "WF2Q: worst-case fair weighted
fair queueing", INFOCOM 1996): among the tasks that are not ahead of their shares, the one whose next document would end
first if all were served at once at the rates of their shares. Sampling by shares would drift with the square root of what
was drawn; choosing whoever is furthest behind lets single tasks fall several documents back.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm

CLOSING_PART = 3  # of a longest document, one part is what may be given out of turn


class Mixer:
    """Tokens given to each task so far. All comparisons are between integers, so no rounding ever decides."""

    def __init__(self, shares: Mapping[str, float], longest: int) -> None:
        """``shares``: above 0, of any sum. ``longest``: tokens of the longest document of any task."""
        exact = {task: Fraction(share) for task, share in shares.items()}
        unit = lcm(*(share.denominator for share in exact.values()))
        self._weights = {task: int(share * unit) for task, share in exact.items()}
        self._whole = sum(self._weights.values())
        self._most = longest * self._whole
        self.given = dict.fromkeys(shares, 0)

    def turn(self, lengths: Mapping[str, int]) -> str:
        """Whose turn it is; ``lengths``: tokens of each task's next document.

        One is always not ahead of its share, since drifts sum to zero.
        """
        total, first = sum(self.given.values()), ""
        for task, num_tokens in lengths.items():
            if self._behind(task, total) < 0:
                continue
            # Where its next document would end, compared without dividing: end / weight < end of the first / its weight.
            end, weight = self.given[task] + num_tokens, self._weights[task]
            if not first or end * self._weights[first] < (self.given[first] + lengths[first]) * weight:
                first = task
        return first

    def allows(self, task: str, num_tokens: int) -> bool:
        """Whether the task may be given so many tokens although it is not its turn.

        Every task must stay within a third of a longest document of its share: the rest is what the turns that follow
        may need. (With a half, one in a hundred thousand sequences of the worst made mixes ends beyond one document.)
        """
        total = sum(self.given.values()) + num_tokens
        for other in self.given:
            own = self._whole * num_tokens if other == task else 0
            if CLOSING_PART * abs(self._behind(other, total) - own) > self._most:
                return False
        return True

    def give(self, task: str, num_tokens: int) -> None:
        self.given[task] += num_tokens

    def drift(self) -> dict[str, float]:
        """Tokens that each task is ahead of its share, or behind it (below 0)."""
        total = sum(self.given.values())
        return {task: -self._behind(task, total) / self._whole for task in self.given}

    def _behind(self, task: str, total: int) -> int:
        """Tokens that the task is behind its share of a total, times the sum of all weights."""
        return self._weights[task] * total - self._whole * self.given[task]
