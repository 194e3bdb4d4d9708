from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.order import Order, generator, stream


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 2**32), st.integers(0, 3))
def test_every_epoch_has_every_document_once_shard_by_shard(shards: list[int], seed: int, epoch: int) -> None:
    order = Order(seed, "asr", np.array(shards))
    start = epoch * len(order)
    found = [order.document(position) for position in range(start, start + len(order))]
    assert sorted(found) == list(range(len(shards)))
    changes = sum(shards[left] != shards[right] for left, right in pairwise(found))
    assert changes == len(set(shards)) - 1


@given(st.lists(st.integers(0, 199), min_size=1, max_size=20), st.integers(0, 99))
def test_a_position_has_its_document_whenever_it_is_asked_for(positions: list[int], seed: int) -> None:
    shards = np.zeros(7, dtype=np.int64)
    whole = Order(seed, "asr", shards)
    known = [whole.document(position) for position in range(200)]
    assert [Order(seed, "asr", shards).document(position) for position in positions] == [known[p] for p in positions]


def test_seeds_sources_and_epochs_have_orders_of_their_own() -> None:
    shards = np.arange(500) // 50

    def first_epoch(seed: int, source: str, start: int = 0) -> list[int]:
        order = Order(seed, source, shards)
        return [order.document(start + place) for place in range(500)]

    orders = [first_epoch(1, "asr"), first_epoch(2, "asr"), first_epoch(1, "tts"), first_epoch(1, "asr", start=500)]
    for number, order in enumerate(orders):
        assert order != list(range(500))
        for other in orders[:number]:
            assert sum(left == right for left, right in zip(order, other, strict=True)) < 20  # chance: 1


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Written down: a change of these numbers changes what every resumed run reads."""
    order = Order(7, "asr", np.array([0, 0, 0, 1, 1, 1]))
    assert [order.document(position) for position in range(12)] == [3, 4, 5, 1, 0, 2, 4, 5, 3, 2, 1, 0]


def test_a_stream_is_split_mix_64() -> None:
    """Against the generator as its authors write it, one state after the other."""
    start = int(np.frombuffer(hashlib.sha256(b"x").digest()[:8], dtype="<u8")[0])
    state, expected = start, []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        mixed = state
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = ((mixed ^ (mixed >> shift)) * factor) % 2**64
        expected.append(mixed ^ (mixed >> 31))
    assert stream("x", np.arange(5)).tolist() == expected


def test_a_name_has_random_numbers_of_its_own() -> None:
    assert generator("a").random() == generator("a").random() != generator("b").random()
