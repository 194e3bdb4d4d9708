from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenization.stretches import TokenKind
from training.batches import LEAST_FILLED, HeardExample, by_length, collate, collate_ctc, hear, on_device
from training.examples import Example
from training.features import log_mel
from training.lengths import num_patches
from training.recipe import Task
from training.tags import UNKNOWN

PAD = 7


def example(length: int, audio: tuple[np.ndarray, ...] = (), weight: float = 0.5, task: Task = Task.ASR) -> Example:
    """Ids from 100 on; what is heard stands first, and the rest but the first has loss."""
    num_heard = sum(num_patches(len(piece)) for piece in audio)
    places = np.arange(length)
    weights = np.where((places >= num_heard) & (places > 0), weight, 0.0).astype(np.float32)
    kinds = np.full(length, TokenKind.TEXT, dtype=np.uint8)
    return Example(task, f"d{length}", 100 + places, kinds, weights, places.astype(np.int32), places < num_heard, audio)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)


def test_rows_hold_documents_one_behind_the_other_and_padding_belongs_to_none() -> None:
    batch = collate([[example(3), example(2)], [example(4)]], 6, 40, PAD)
    assert batch.ids_BT.tolist() == [[100, 101, 102, 100, 101, PAD], [100, 101, 102, 103, PAD, PAD]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]]
    assert batch.spans.rows == ((3, 2), (4,))
    assert batch.document_ids == ("d3", "d2", "d4")
    assert batch.weights_BT.flatten().nonzero().flatten().tolist() == batch.targets_N.tolist() == [1, 2, 4, 7, 8, 9]
    assert batch.weight == pytest.approx(0.5 * 6)
    assert (batch.num_tokens, batch.padding) == (9, 0.25)
    assert batch.heard == ()


def test_a_batch_may_hold_no_document_at_all() -> None:
    batch = collate([[], []], 4, 40, PAD)
    assert (batch.num_tokens, batch.padding, batch.weight, len(batch.targets_N)) == (0, 1.0, 0.0, 0)


@given(st.lists(st.integers(400, 400_000), max_size=20))
def test_groups_of_like_lengths_hold_everything_once_with_little_padding(lengths: list[int]) -> None:
    groups = by_length(lengths)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[place] for place in group)
        assert sum(lengths[place] for place in group) >= LEAST_FILLED * (longest * len(group))


def test_features_of_batches_by_length_stand_in_the_order_of_the_pieces() -> None:
    """Each patch is told by its piece and place: as if the encoder's features were those."""
    pieces = [noise(samples) for samples in (16_000, 4_000, 15_500, 32_000, 4_100)]
    batches, places = hear(pieces, 40)
    assert len(batches) == 3
    numbers = {bytes(log_mel(torch.from_numpy(piece), 40)[:, 0].numpy()): number for number, piece in enumerate(pieces)}
    features = [
        (numbers[bytes(mel[:, 0].numpy())], patch)
        for batch in batches
        for mel, count in zip(batch.mels_ACM, batch.num_patches_A.tolist(), strict=True)
        for patch in range(count)
    ]
    expected = [(number, patch) for number, piece in enumerate(pieces) for patch in range(num_patches(len(piece)))]
    assert [features[place] for place in places.tolist()] == expected


def test_labels_of_audio_come_by_length_with_their_weights() -> None:
    examples = [example(length, (noise(samples),), 2.0, Task.CTC) for length, samples in ((2, 4_000), (3, 16_000), (1, 4_200))]
    examples = [Example(**{**vars(e), "weights": np.full(len(e.ids), 2.0, dtype=np.float32)}) for e in examples]
    tags = ((0, 1), (UNKNOWN, 2), (1, UNKNOWN))
    heard = [
        HeardExample(e, log_mel(torch.from_numpy(e.audio[0]), 40), numbers) for e, numbers in zip(examples, tags, strict=True)
    ]
    batches = collate_ctc(heard, [0.5, 3.0])
    assert [batch.document_ids for batch in batches] == [("d3",), ("d1", "d2")]
    assert [batch.num_labels_A.tolist() for batch in batches] == [[3], [1, 2]]
    assert batches[1].labels_AL.tolist() == [[100, 0], [100, 101]]
    assert [batch.tags_GA.tolist() for batch in batches] == [[[UNKNOWN], [2]], [[1, 0], [UNKNOWN, 1]]]
    assert [batch.weight for batch in batches] == [6.0 + 3.0, 6.0 + 2 * 0.5 + 3.0]


def test_a_batch_moves_with_all_that_it_holds() -> None:
    batch: Any = on_device(collate([[example(30, (noise(8000),))]], 40, 40, PAD), torch.device("meta"))
    assert all(value.device.type == "meta" for value in vars(batch).values() if isinstance(value, torch.Tensor))
    assert all(value.device.type == "meta" for value in vars(batch.heard[0]).values())
    assert batch.spans.rows == ((30,),)
