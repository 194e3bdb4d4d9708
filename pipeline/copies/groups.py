"""Which clips are copies of one another, and which of them stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class CopyPair(NamedTuple):
    """Two clips by their numbers, and whether what they share is nearly all of the left one, of the right one."""

    left: int
    right: int
    covers_left: bool
    covers_right: bool


class Decision(NamedTuple):
    """The group of a clip (its smallest member), and the copy that stays for it; None where it stays itself."""

    group: int
    kept: int | None


def decide(
    pairs: Iterable[CopyPair], length: Callable[[int], float], rank: Callable[[int], tuple[object, ...]]
) -> dict[int, Decision]:
    """The decision on every clip of a pair of which one covers the other.

    Groups are the connected components of such pairs. Clips that cover each other, whole copies, are a class, of which
    the best by ``rank`` (the smaller, the better; no two alike) stays. A class that a longer one covers is an excerpt: none
    of it stays, since the best of what covers it does. So whatever is left out is found in what stays.
    """
    usable = [pair for pair in pairs if pair.covers_left or pair.covers_right]
    groups, classes = Components(), Components()
    for pair in usable:
        groups.join(pair.left, pair.right)
        if pair.covers_left and pair.covers_right:
            classes.join(pair.left, pair.right)
    members: dict[int, list[int]] = {}
    for clip in groups.parents:
        members.setdefault(classes.root(clip), []).append(clip)
    size = {root: (max(map(length, clips)), -root) for root, clips in members.items()}
    holder = dict[int, int]()  # class -> the longest one that covers it
    for pair in usable:
        for part, whole, covers in ((pair.left, pair.right, pair.covers_left), (pair.right, pair.left, pair.covers_right)):
            inner, outer = classes.root(part), classes.root(whole)
            if covers and size[outer] > size[inner] and (inner not in holder or size[outer] > size[holder[inner]]):
                holder[inner] = outer
    best = {root: min(clips, key=rank) for root, clips in members.items()}
    found = dict[int, Decision]()
    for root, clips in members.items():
        outermost = root
        while outermost in holder:  # it ends: each one is larger
            outermost = holder[outermost]
        kept = best[outermost]
        for clip in clips:
            found[clip] = Decision(groups.root(clip), None if clip == kept else kept)
    return found


class Components:
    """Sets of numbers that grow together (union-find); a set is named by its smallest number."""

    def __init__(self) -> None:
        self.parents = dict[int, int]()

    def root(self, number: int) -> int:
        """Name of the number's set."""
        while self.parents.setdefault(number, number) != number:
            self.parents[number] = number = self.parents[self.parents[number]]
        return number

    def join(self, one: int, two: int) -> None:
        low, high = sorted((self.root(one), self.root(two)))
        self.parents[high] = low
