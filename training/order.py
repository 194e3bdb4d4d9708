"""The order of documents: a pure function of (seed, source, epoch, position), whoever asks for it and in whatever order.

Nothing here depends on how many processes read, nor on a random generator whose stream a library may change: keys come from
SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014), and sorting them is the order.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Order:
    """Documents of one source, epoch after epoch: each once an epoch, shard by shard.

    Shards come in random order and so do the documents of a shard. Packs are shuffled when they are made, so that what is
    read together is random already, and a shard that was opened is read to its end.
    """

    def __init__(self, seed: int, source: str, shards_N: np.ndarray) -> None:
        """``shards_N``: for each document any number that tells its shard from the others, int64 ``[N]``, N > 0."""
        self._seed, self._source = seed, source
        self._shards_N = np.unique(shards_N, return_inverse=True)[1].astype(np.uint64)
        # An epoch's order is asked for by every position of it; a window looks no further than the epoch.
        self._epoch = lru_cache(maxsize=2)(self._sorted)

    def __len__(self) -> int:
        """Documents of an epoch."""
        return len(self._shards_N)

    def document(self, position: int) -> int:
        """Number of the document ``[0, N)`` at a position, counted from 0 through all epochs."""
        epoch, place = divmod(position, len(self))
        return int(self._epoch(epoch)[place])

    def _sorted(self, epoch: int) -> np.ndarray:
        shard_keys_N = stream(f"{self._seed} {self._source} {epoch} shards", self._shards_N)
        keys_N = stream(f"{self._seed} {self._source} {epoch} documents", np.arange(len(self), dtype=np.uint64))
        return np.lexsort((keys_N, shard_keys_N))


def stream(name: str, places_N: np.ndarray) -> np.ndarray:
    """Values uint64 ``[N]`` at places of the stream of SplitMix64 that belongs to the name."""
    start = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], dtype="<u8")
    mixed = start + (places_N.astype(np.uint64) + np.uint64(1)) * GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * SECOND
    return mixed ^ (mixed >> np.uint64(31))


def generator(name: str) -> np.random.Generator:
    """Random numbers of their own for a name; two uses under one name would draw the same ones."""
    return np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4"))
