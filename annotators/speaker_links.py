"""Which speaker of one stretch of a recording is which speaker of the stretches before it.

Shape legend: N speakers of a stretch, D embedding width.
"""

from __future__ import annotations

import numpy as np


class SpeakerLinks:
    """Gives speakers of successive stretches one name each for the whole recording.

    A stretch's speakers are matched to the known ones by least total cosine distance (Hungarian method); a pair further
    apart than ``threshold`` is no match, and a speaker without a match is a new one. Known speakers are the
    means of what was matched to them, weighted by duration. A centroid that is not finite (too little speech) matches none.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._sums: list[np.ndarray] = []  # [D] each

    def assign(self, centroids_ND: np.ndarray, weights_N: np.ndarray) -> list[int]:
        """Index of the recording's speaker for each speaker of the next stretch; all different."""
        from scipy.optimize import linear_sum_assignment

        known = len(self._sums)
        units_ND = _unit(np.nan_to_num(np.asarray(centroids_ND, np.float64)))
        names = [-1] * len(units_ND)
        if known and len(units_ND):
            distance = 1.0 - units_ND @ _unit(np.stack(self._sums)).T
            # Beyond the threshold every pair costs the same, so that none of them pulls another pair apart.
            for row, column in zip(*linear_sum_assignment(np.minimum(distance, self._threshold)), strict=True):
                if distance[row, column] < self._threshold:
                    names[row] = int(column)
        for row, unit_D in enumerate(units_ND):
            if names[row] < 0:
                names[row] = len(self._sums)
                self._sums.append(np.zeros_like(unit_D))
            self._sums[names[row]] = self._sums[names[row]] + weights_N[row] * unit_D
        return names


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
