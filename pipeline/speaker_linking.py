"""Which voices are one person: average linkage over mean vectors, by rounds of nearest neighbours.

A *voice* is what one local speaker, or one person found before, sounds like: the weighted mean of the unit vectors of its
clips, not normalised. The inner product of two such means is the mean cosine between the clips of one and those of the
other, exactly, whatever their number: average linkage needs no matrix of pairs, and no chain of neighbours can pull two
crowds together, as single linkage lets it.

Some people vary more than others, and are then less like themselves. So the mean cosine of two voices is taken relative to
that of each with itself: ``TYPICAL * m1 m2 / sqrt(o1 o2)``, where ``o`` is the mean cosine among a voice's own clips and a
clip's with itself, which would be 1, counts as TYPICAL. For two single clips that is their cosine, so that one threshold holds
for voices of one clip and of ten thousand.

Two voices that are each other's nearest are merged, many such pairs at once, which gives what merging the closest pair again
and again gives (reciprocal agglomerative clustering, Sumengen et al. 2021, arXiv 2105.11653; exactly so for plain average
linkage). Nearest neighbours are looked for approximately (faiss; Johnson et al. 2019), in a graph of the NUM_NEIGHBOURS of
each voice that is contracted until nothing in it merges any more, and then made anew from what is left. A voice without a
neighbour above the threshold is left as it is.

Shape legend: N voices, D embedding width, E pairs, Q queries, K neighbours, C clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPICAL = 0.79  # mean cosine of two clips of one person (docs/quality.md, topic speakers)
NUM_NEIGHBOURS = 16
MOST_EXACT = 16_384  # voices among which neighbours are looked for one by one: at most 6 s on one core
CELLS_A_ROOT = 4  # cells of the index, times the square root of the voices in it
NUM_PROBES = 24  # cells that a query looks into
TRAINED_ON = 64  # voices a cell that the cells are fitted on
SEED = 1234
VOICES_AT_ONCE = 32_768

Advance = Callable[[int, int], None]  # queries that were answered, queries that came up; each since the call before


@dataclass(frozen=True)
class VoiceMeans:
    """What voices sound like, and what merging two of them needs."""

    means: np.ndarray  # float32 [N, D]
    weights: np.ndarray  # float64 [N]
    selves: np.ndarray  # float64 [N], among all pairs of a voice's clips the weighted share of a clip with itself: 1 for one clip

    @staticmethod
    def of_clips(vectors_CD: np.ndarray, weights_C: np.ndarray) -> VoiceMeans:
        """Every clip as a voice."""
        return VoiceMeans(np.array(vectors_CD, np.float32), np.array(weights_C, np.float64), np.ones(len(vectors_CD)))

    @staticmethod
    def concatenated(blocks: Sequence[VoiceMeans]) -> VoiceMeans:
        """All of them; a block without voices has any width."""
        filled = [block for block in blocks if len(block)] or [VoiceMeans.of_clips(np.zeros((0, 0)), np.zeros(0))]
        columns = ([getattr(block, name) for block in filled] for name in ("means", "weights", "selves"))
        return VoiceMeans(*(np.concatenate(column) for column in columns))

    def __len__(self) -> int:
        return len(self.means)

    def take(self, rows: np.ndarray) -> VoiceMeans:
        return VoiceMeans(self.means[rows], self.weights[rows], self.selves[rows])

    def scaled(self, rows: np.ndarray, least: float) -> np.ndarray:
        """Float32 ``[len(rows), D]`` whose inner products say how near voices are.

        A voice's own mean cosine counts for no less than ``least``: who was merged by mistake must not draw others in.
        """
        means_ND = self.means[rows]
        own_N = np.einsum("nd,nd->n", means_ND, means_ND) - self.selves[rows] * (1 - TYPICAL)
        return means_ND * np.sqrt(TYPICAL / np.maximum(own_N, least)).astype(np.float32)[:, None]

    def merge(self, a: np.ndarray, b: np.ndarray) -> None:
        """Voices ``a`` take up voices ``b``; no voice is in two pairs."""
        weight = self.weights[a] + self.weights[b]
        share = self.weights[b] / weight
        self.means[a] += share.astype(np.float32)[:, None] * (self.means[b] - self.means[a])
        self.selves[a] = (1 - share) ** 2 * self.selves[a] + share**2 * self.selves[b]
        self.weights[a] = weight


def link(
    voices: VoiceMeans,
    threshold: float,
    is_new_N: np.ndarray | None = None,
    scenes: Mapping[int, frozenset[int]] | None = None,
    *,
    num_threads: int = 1,
    num_neighbours: int = NUM_NEIGHBOURS,
    advance: Advance = lambda done, more: None,
) -> np.ndarray:
    """The person of each voice: int64 ``[N]``, the position of the first voice that is the same person.

    ``voices`` are worked in: afterwards the rows of first voices are those of the whole persons. Two are one when they are
    as near as two clips with a cosine of ``threshold``. ``scenes`` maps voices -> recordings in which they were told apart
    from others: who shares one is never merged. Voices that are not new were linked before: none of them is compared with
    another of them unless something joined one. The result follows the voices when they are reordered, but for ties and for
    what the approximate search misses; with one thread count it is the same each time.
    """
    root_N = np.arange(len(voices))
    live, queries = root_N, root_N if is_new_N is None else np.flatnonzero(is_new_N)
    random, seen = np.random.default_rng(SEED), dict(scenes or {})
    while len(queries):
        advance(0, len(queries))
        pairs_E2, sims_E = _neighbours(voices, live, queries, threshold, num_neighbours, num_threads, advance)
        live = np.unique(pairs_E2)
        _contract(voices, root_N, pairs_E2, sims_E, threshold, seen, random)
        left = live[root_N[live] == live]
        if len(left) == len(live):
            break  # what is near is told apart
        live = queries = left
    while (jumped := root_N[root_N]).tobytes() != root_N.tobytes():
        root_N = jumped
    return root_N


def split_voices(vectors_CD: np.ndarray, weights_C: np.ndarray, threshold: float) -> np.ndarray:
    """Voices among the clips of a channel that nobody labelled: int64 ``[C]``, the first clip of the same voice.

    They are one voice as long as their mean cosine with one another is at least ``threshold``: a single clip that is noisy
    makes no second person.
    """
    sum_D, squares = weights_C @ vectors_CD, float((weights_C**2).sum())
    others = float(weights_C.sum()) ** 2 - squares
    if others <= 0 or float(sum_D @ sum_D) - squares >= threshold * others:
        return np.zeros(len(vectors_CD), np.int64)
    return link(VoiceMeans.of_clips(vectors_CD, weights_C), threshold)


def _neighbours(
    voices: VoiceMeans,
    live: np.ndarray,
    queries: np.ndarray,
    threshold: float,
    num_neighbours: int,
    num_threads: int,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of voices, int64 ``[E, 2]`` with the first below the second, each once, and how near they are ``[E]``.

    Those of each query with its nearest in ``live``, as far as they reach the threshold.
    """
    import faiss

    faiss.omp_set_num_threads(num_threads)
    index, num = _index(voices, live, threshold), len(voices)
    keys, sims = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for asked_Q in _blocks(queries):
        sims_QK, found_QK = index.search(voices.scaled(asked_Q, threshold), min(num_neighbours + 1, len(live)))
        found_QK = np.where(found_QK < 0, asked_Q[:, None], live[found_QK])
        near_QK = (sims_QK >= threshold) & (found_QK != asked_Q[:, None])
        other, own = found_QK[near_QK], np.broadcast_to(asked_Q[:, None], found_QK.shape)[near_QK]
        keys.append(np.minimum(own, other) * num + np.maximum(own, other))
        sims.append(sims_QK[near_QK])
        advance(len(asked_Q), 0)
    pair_E, first_E = np.unique(np.concatenate(keys), return_index=True)
    return np.stack([pair_E // num, pair_E % num], axis=1), np.concatenate(sims)[first_E]


def _index(voices: VoiceMeans, live: np.ndarray, threshold: float) -> Any:
    """An index of inner products: exact for few voices, else by cells around which they lie."""
    import faiss

    width = voices.means.shape[1]
    index: Any = faiss.IndexFlatIP(width)
    if len(live) > MOST_EXACT:
        cells = round(CELLS_A_ROOT * len(live) ** 0.5)
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = SEED, NUM_PROBES
        num_trained = min(len(live), TRAINED_ON * cells)
        index.train(voices.scaled(np.random.default_rng(SEED).choice(live, num_trained, replace=False), threshold))
    for some in _blocks(live):
        index.add(voices.scaled(some, threshold))
    return index


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[first : first + VOICES_AT_ONCE] for first in range(0, len(rows), VOICES_AT_ONCE)]


def _contract(
    voices: VoiceMeans,
    root_N: np.ndarray,
    pairs_E2: np.ndarray,
    sims_E: np.ndarray,
    threshold: float,
    scenes: dict[int, frozenset[int]],
    random: np.random.Generator,
) -> None:
    """Merge voices that are each other's nearest in the graph, until no pair of it that may merge reaches the threshold."""
    num, a_E, b_E = len(voices), pairs_E2[:, 0], pairs_E2[:, 1]
    best_N, first_N, has_moved_N = np.empty(num, np.float32), np.empty(num, np.int64), np.zeros(num, bool)
    while len(sims_E):
        best_N.fill(-np.inf)
        np.maximum.at(best_N, a_E, sims_E)
        np.maximum.at(best_N, b_E, sims_E)
        chosen = np.flatnonzero((sims_E == best_N[a_E]) & (sims_E == best_N[b_E]))
        # Equal recordings give equal cosines: of the pairs that then share a voice, the first in a random order counts.
        a, b, order = a_E[chosen], b_E[chosen], random.permutation(len(chosen))
        first_N.fill(num)
        np.minimum.at(first_N, a, order)
        np.minimum.at(first_N, b, order)
        chosen = chosen[(order == first_N[a]) & (order == first_N[b])]
        is_one = _joined(scenes, a_E[chosen], b_E[chosen])
        a, b = a_E[chosen[is_one]], b_E[chosen[is_one]]
        voices.merge(a, b)
        root_N[b] = a
        has_moved_N.fill(False)
        has_moved_N[a] = has_moved_N[b] = True
        is_touched = has_moved_N[a_E] | has_moved_N[b_E]
        rests = ~is_touched
        rests[chosen] = False  # merged, or told apart
        left, right = root_N[a_E[is_touched]], root_N[b_E[is_touched]]
        keys = np.unique((np.minimum(left, right) * num + np.maximum(left, right))[left != right])
        left, right = keys // num, keys % num
        sims = _nearness(voices, left, right, threshold)
        stays = sims >= threshold
        a_E, b_E = np.concatenate([a_E[rests], left[stays]]), np.concatenate([b_E[rests], right[stays]])
        sims_E = np.concatenate([sims_E[rests], sims[stays]])


def _joined(scenes: dict[int, frozenset[int]], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bool, a pair each: whether the two may be one, and then the first is now in the scenes of both."""
    is_one = np.ones(len(a), bool)
    if scenes:
        for at, (one, two) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            ours, theirs = scenes.get(one), scenes.get(two)
            if ours and theirs and not ours.isdisjoint(theirs):
                is_one[at] = False
            elif theirs:
                scenes[one] = theirs | (ours or frozenset())
    return is_one


def _nearness(voices: VoiceMeans, left: np.ndarray, right: np.ndarray, threshold: float) -> np.ndarray:
    """Float32, how near the voices of each pair are."""
    sims = [
        np.einsum("nd,nd->n", voices.scaled(one, threshold), voices.scaled(two, threshold))
        for one, two in zip(_blocks(left), _blocks(right), strict=True)
    ]
    return np.concatenate([np.zeros(0, np.float32), *sims])
