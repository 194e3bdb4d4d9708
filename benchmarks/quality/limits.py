"""Limits that are fitted on some groups and scored on others: one rule for all of them, chosen before looking at any figure.

At most MOST_FALSE of what is right may be called; of the limits that keep to that, those that find most of what is wrong; of
those that tie, the one in the middle. What is shipped is what the rule gives on everything.

Shape legend: N items; a grid has one axis for each limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.quality.figures import Figure
from manifests.contracts import Audio

NUM_FOLDS = 5
MOST_FALSE = 0.005
Grid = Mapping[str, Sequence[float]]  # limit -> values that are tried, in order
Among = Literal["negatives", "called"]


@dataclass(frozen=True)
class Fitted:
    """What limits call that were fitted on the other folds' groups, and what the rule gives on everything."""

    called: np.ndarray  # bool [N]
    by_fold: list[dict[str, float]]
    on_all: dict[str, float]

    def note(self, shipped: Mapping[str, float]) -> str:
        return "held out; " + "; ".join(f"{name} {self._spread(name)}" for name in shipped)

    def rows(self, shipped: Mapping[str, float]) -> list[str]:
        """Markdown: a row a limit, for ``limits_table``."""
        return [
            f"| `{name}` | {self._spread(name)} | {self.on_all[name]:g} | {value:g}{'' if self.on_all[name] == value else ' (!)'} |"
            for name, value in shipped.items()
        ]

    def _spread(self, name: str) -> str:
        values = sorted(limits[name] for limits in self.by_fold)
        return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} to {values[-1]:g}"


class Sound(NamedTuple):
    """Audio at 16 kHz, and whose it is: what is left out together."""

    group: str
    audio: Audio


class Found(NamedTuple):
    """What one or several limits give: figures, and a row of ``limits_table`` each."""

    figures: list[Figure]
    rows: list[str]


def columns(kinds: Mapping[str, list[tuple]]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Values float64 ``[N, ...]``, groups and kinds ``[N]`` of rows (group, values...) by kind."""
    rows = [(kind, row) for kind, found in kinds.items() for row in found]
    return np.array([row[1:] for _, row in rows], float), [row[0] for _, row in rows], np.array([kind for kind, _ in rows])


def limits_table(rows: Sequence[str]) -> str:
    head = ["| limit | fitted in the folds | fitted on all | shipped |", "|---|---|---|---|"]
    return "\n".join([*head, *rows])


def cross_validated(
    call: Callable[[np.ndarray], np.ndarray],
    grid: Grid,
    is_positive_N: np.ndarray,
    groups: Sequence[str],
    among: Among = "negatives",
) -> Fitted:
    """Each group is called by limits that were fitted on others.

    ``call`` gets a bool ``[N]`` of the items that may be learned from, and says bool ``[*grid, N]`` what each limit calls.
    """
    everything_N = np.ones(len(is_positive_N), bool)
    called_N, by_fold = np.zeros(len(is_positive_N), bool), []
    for held_N in folds(is_positive_N, groups):
        calls = call(~held_N)
        at = best_limits(calls[..., ~held_N], is_positive_N[~held_N], among)
        called_N[held_N] = calls[at][held_N]
        by_fold.append(_values(grid, at))
    return Fitted(called_N, by_fold, _values(grid, best_limits(call(everything_N), is_positive_N, among)))


def folds(is_positive_N: np.ndarray, groups: Sequence[str]) -> list[np.ndarray]:
    """Bool ``[N]`` of the items held out, a fold each: a group is in one fold alone, positives spread as evenly as that allows."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    split = splitter.split(np.zeros(len(is_positive_N)), is_positive_N, np.asarray(groups))
    return [np.isin(np.arange(len(is_positive_N)), held) for _, held in split]


def best_limits(calls: np.ndarray, is_positive_N: np.ndarray, among: Among = "negatives") -> tuple[int, ...]:
    """Where in the grid the limits lie; ``calls`` is bool ``[*grid, N]``.

    MOST_FALSE is a share of the negatives, or of what is called. Where nothing keeps to it, the fewest false calls win.
    """
    num_false = calls[..., ~is_positive_N].sum(axis=-1)
    wholes = np.maximum(1, calls.sum(axis=-1)) if among == "called" else max(1, int((~is_positive_N).sum()))
    false = num_false / wholes
    found = calls[..., is_positive_N].sum(axis=-1)
    keeps = false <= max(MOST_FALSE, float(false.min()))
    return middle(keeps & (found == found[keeps].max()))


def middle(is_best: np.ndarray) -> tuple[int, ...]:
    """The cell of a bool grid that lies deepest among those that hold; of several, the one nearest to their mean."""
    from scipy.ndimage import distance_transform_edt

    inside = tuple(slice(1, -1) for _ in is_best.shape)
    depth = distance_transform_edt(np.pad(is_best, 1))[inside]
    deepest = np.argwhere(np.isclose(depth, depth.max()))
    nearest = np.linalg.norm(deepest - deepest.mean(axis=0), axis=1).argmin()
    return tuple(deepest[nearest].tolist())


def quantile_borders(
    values_N: np.ndarray, shares: Sequence[float], groups: Sequence[str]
) -> tuple[list[tuple[float, ...]], tuple[float, ...], np.ndarray]:
    """Borders that are quantiles: of each fold's other groups, of all, and int ``[N]`` between which of the former a value lies.

    Borders are rounded to whole numbers.
    """

    def borders(values: np.ndarray) -> tuple[float, ...]:
        return tuple(float(round(border)) for border in np.quantile(values, shares))

    by_fold, place_N = [], np.zeros(len(values_N), int)
    for held_N in folds(np.zeros(len(values_N), bool), groups):
        by_fold.append(borders(values_N[~held_N]))
        place_N[held_N] = np.searchsorted(by_fold[-1], values_N[held_N], side="right")
    return by_fold, borders(values_N), place_N


def _values(grid: Grid, at: tuple[int, ...]) -> dict[str, float]:
    return {name: float(values[i]) for (name, values), i in zip(grid.items(), at, strict=True)}
