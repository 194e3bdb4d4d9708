"""Which voices are one person: average linkage over mean vectors, by rounds of nearest neighbours.

A *voice* is what one local speaker, or one person found before, sounds like: the weighted mean of the unit vectors of its
clips, not normalised. The inner product of two such means is the mean cosine between the clips of one and those of the
other, exactly, whatever their number: average linkage needs no matrix of pairs, one threshold means the same for a voice
of one clip and of ten thousand, and no chain of neighbours can pull two crowds together, as single linkage lets it.

Two voices that are each other's nearest are merged, many such pairs at once: under average linkage that gives the
dendrogram of merging the closest pair again and again, whatever the order (reciprocal agglomerative clustering, Sumengen et
al. 2021, arXiv 2105.11653). Nearest neighbours are looked for approximately (faiss; Johnson et al. 2019), in a graph of the NUM_NEIGHBOURS of each
voice that is contracted until nothing in it merges any more, and then made anew from what is left. A voice without a
neighbour above the threshold is final: no merging of others brings one nearer than its nearest part was.

Shape legend: N voices, D embedding width, E pairs, Q queries, K neighbours, C clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

NUM_NEIGHBOURS = 16
MOST_EXACT = 16_384  # voices among which neighbours are looked for one by one: at most 6 s on one core
CELLS_A_ROOT = 4  # cells of the index, times the square root of the voices in it
NUM_PROBES = 24  # cells that a query looks into
TRAINED_ON = 64  # voices a cell that the cells are fitted on
SEED = 1234
QUERIES_AT_ONCE, PAIRS_AT_ONCE = 32_768, 16_384

Advance = Callable[[int, int], None]  # queries that were answered, queries that came up; each since the call before


def link(
    means_ND: np.ndarray,
    weights_N: np.ndarray,
    threshold: float,
    is_new_N: np.ndarray | None = None,
    scenes: Mapping[int, frozenset[int]] | None = None,
    *,
    num_threads: int = 1,
    num_neighbours: int = NUM_NEIGHBOURS,
    advance: Advance = lambda done, more: None,
) -> np.ndarray:
    """The person of each voice: int64 ``[N]``, the position of the first voice that is the same person.

    ``means_ND`` (float32) and ``weights_N`` (float64) are worked in: afterwards the rows of first voices hold what the
    whole person sounds like, and weighs. Two persons are one when the mean cosine between their clips is at least
    ``threshold``. ``scenes`` maps voices -> recordings in which they were told apart from others: who shares one is never
    merged. Voices that are not new were linked before: none of them is compared with another of them unless something
    joined one. The result follows the voices when they are reordered, but for ties and for what the approximate search
    misses; with one thread count it is the same each time.
    """
    root_N = np.arange(len(means_ND))
    live, queries = root_N, root_N if is_new_N is None else np.flatnonzero(is_new_N)
    random, seen = np.random.default_rng(SEED), dict(scenes or {})
    while len(queries):
        advance(0, len(queries))
        pairs_E2, sims_E = _neighbours(means_ND, live, queries, threshold, num_neighbours, num_threads, advance)
        live = np.unique(pairs_E2)
        _contract(means_ND, weights_N, root_N, pairs_E2, sims_E, threshold, seen, random)
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
    return link(vectors_CD.copy(), weights_C.copy(), threshold)


def _neighbours(
    means_ND: np.ndarray,
    live: np.ndarray,
    queries: np.ndarray,
    threshold: float,
    num_neighbours: int,
    num_threads: int,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of voices, int64 ``[E, 2]`` with the first below the second, each once, and their mean cosines ``[E]``.

    Those of each query with its nearest in ``live``, as far as they reach the threshold.
    """
    import faiss

    faiss.omp_set_num_threads(num_threads)
    index = _index(means_ND if len(live) == len(means_ND) else means_ND[live])
    keys, sims = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        asked_Q = queries[first : first + QUERIES_AT_ONCE]
        sims_QK, found_QK = index.search(means_ND[asked_Q], min(num_neighbours + 1, len(live)))
        found_QK = np.where(found_QK < 0, asked_Q[:, None], live[found_QK])
        near_QK = (sims_QK >= threshold) & (found_QK != asked_Q[:, None])
        other, own = found_QK[near_QK], np.broadcast_to(asked_Q[:, None], found_QK.shape)[near_QK]
        keys.append(np.minimum(own, other) * len(means_ND) + np.maximum(own, other))
        sims.append(sims_QK[near_QK])
        advance(len(asked_Q), 0)
    pair_E, first_E = np.unique(np.concatenate(keys), return_index=True)
    return np.stack([pair_E // len(means_ND), pair_E % len(means_ND)], axis=1), np.concatenate(sims)[first_E]


def _index(means_ND: np.ndarray) -> Any:
    """An index of inner products: exact for few voices, else by cells around which they lie."""
    import faiss

    num, width = means_ND.shape
    if num <= MOST_EXACT:
        exact = faiss.IndexFlatIP(width)
        exact.add(means_ND)
        return exact
    cells = round(CELLS_A_ROOT * num**0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid = SEED, TRAINED_ON
    index.nprobe = NUM_PROBES
    index.train(means_ND)
    index.add(means_ND)
    return index


def _contract(
    means_ND: np.ndarray,
    weights_N: np.ndarray,
    root_N: np.ndarray,
    pairs_E2: np.ndarray,
    sims_E: np.ndarray,
    threshold: float,
    scenes: dict[int, frozenset[int]],
    random: np.random.Generator,
) -> None:
    """Merge voices that are each other's nearest in the graph, until no pair of it that may merge reaches the threshold."""
    a_E, b_E = pairs_E2[:, 0], pairs_E2[:, 1]
    best_N, first_N = np.empty(len(means_ND), np.float32), np.empty(len(means_ND), np.int64)
    has_moved_N = np.zeros(len(means_ND), bool)
    while len(sims_E):
        best_N.fill(-np.inf)
        np.maximum.at(best_N, a_E, sims_E)
        np.maximum.at(best_N, b_E, sims_E)
        is_mutual = (sims_E == best_N[a_E]) & (sims_E == best_N[b_E])
        chosen = np.flatnonzero(is_mutual)
        a, b = a_E[chosen], b_E[chosen]
        # Equal recordings give equal cosines: of the pairs that then share a voice, the first in a random order counts.
        order = random.permutation(len(a))
        first_N.fill(len(a))
        np.minimum.at(first_N, a, order)
        np.minimum.at(first_N, b, order)
        chosen = chosen[(order == first_N[a]) & (order == first_N[b])]
        is_one = _joined(scenes, a_E[chosen], b_E[chosen])
        a, b = a_E[chosen[is_one]], b_E[chosen[is_one]]
        weight = weights_N[a] + weights_N[b]
        share = (weights_N[b] / weight).astype(np.float32)[:, None]
        means_ND[a] += share * (means_ND[b] - means_ND[a])
        weights_N[a], root_N[b] = weight, a
        has_moved_N.fill(False)
        has_moved_N[a] = has_moved_N[b] = True
        is_touched = has_moved_N[a_E] | has_moved_N[b_E]
        rests = ~is_touched
        rests[chosen] = False  # merged, or told apart
        left, right = root_N[a_E[is_touched]], root_N[b_E[is_touched]]
        keys = np.unique((np.minimum(left, right) * len(means_ND) + np.maximum(left, right))[left != right])
        left, right = keys // len(means_ND), keys % len(means_ND)
        sims = _mean_cosines(means_ND, left, right)
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


def _mean_cosines(means_ND: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    sims = np.empty(len(left), np.float32)
    for first in range(0, len(left), PAIRS_AT_ONCE):
        some = slice(first, first + PAIRS_AT_ONCE)
        sims[some] = np.einsum("nd,nd->n", means_ND[left[some]], means_ND[right[some]])
    return sims
