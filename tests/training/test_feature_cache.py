from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.batches import HeardPieces, hear
from training.config import SIZES
from training.encoder import AudioEncoder
from training.feature_cache import FeatureCache, encoder_digest
from training.journal import read_rows
from training.lengths import num_patches
from training.model import StepAudio2
from training.objectives import features, frames
from training.recipe import TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS

CONFIG = SIZES["micro"]
NUM_MELS = CONFIG.encoder.num_mels
SECOND_BYTES = 25 * CONFIG.encoder.width * 4


@pytest.fixture
def model() -> StepAudio2:
    torch.manual_seed(0)
    return StepAudio2(CONFIG, 64, 32)


def noises(*samples: int) -> list[np.ndarray]:
    return [np.random.default_rng(number).normal(0, 0.1, number).astype(np.float32) for number in samples]


def cache_of(model: StepAudio2, most_bytes: int = 1 << 20) -> FeatureCache:
    cache = FeatureCache(most_bytes)
    cache.belong_to(model.encoder)
    return cache


def heard(model: StepAudio2, pieces: list[np.ndarray], cache: FeatureCache) -> tuple[torch.Tensor, list[bool]]:
    """Adaptor features, and for each piece of the batches whether a mel was made of it."""
    batches, places = hear(pieces, NUM_MELS, cache)
    found = features(model, batches, places)
    assert found is not None
    return found.detach(), [mel is not None for batch in batches for mel in batch.mels_A]  # type: ignore[union-attr]


def test_what_was_encoded_once_is_neither_encoded_nor_made_a_spectrum_of_again(
    model: StepAudio2, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces, cache = noises(16_000, 15_500, 4_000), cache_of(model)
    first, made = heard(model, pieces, cache)
    assert made == [True] * 3
    monkeypatch.delattr(AudioEncoder, "forward")
    again, made = heard(model, pieces[::-1], cache)
    assert made == [False] * 3
    counts = [num_patches(len(piece)) for piece in pieces]
    assert [len(part) for part in first.split(counts)] == counts
    for part, same in zip(first.split(counts), reversed(again.split(counts[::-1])), strict=True):
        assert torch.equal(part, same)


def test_frames_do_not_depend_on_neighbours_nor_on_what_is_kept(model: StepAudio2) -> None:
    """Batched by length, these same pieces would differ in their last bits."""
    pieces = noises(*range(12_000, 12_900, 100))
    kept, _ = heard(model, pieces, cache_of(model))
    alone = [heard(model, [piece], cache_of(model, most_bytes=0))[0] for piece in pieces]
    batched = features(model, *hear(pieces, NUM_MELS))
    assert batched is not None
    batches, _ = hear(pieces, NUM_MELS, cache_of(model))
    one_by_one = [hear([piece], NUM_MELS, cache_of(model, most_bytes=0))[0][0] for piece in pieces]
    by_length = frames(model, batches[0])
    for place, piece in enumerate(reversed(one_by_one)):
        own = frames(model, piece)[0]
        assert torch.equal(by_length[place, : len(own)], own)
        assert not by_length[place, len(own) :].any()
    torch.testing.assert_close(kept, batched, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_full_cache_keeps_what_came_first(model: StepAudio2) -> None:
    pieces, cache = noises(16_000, 16_160), cache_of(model, most_bytes=SECOND_BYTES)
    heard(model, pieces[:1], cache)
    heard(model, pieces[1:], cache)
    assert heard(model, pieces[:1], cache)[1] == [False]
    assert heard(model, pieces[1:], cache)[1] == [True]


def test_frames_of_another_encoder_are_never_used(model: StepAudio2) -> None:
    pieces, cache = noises(16_000), cache_of(model)
    before, _ = heard(model, pieces, cache)
    cache.belong_to(model.encoder)
    assert heard(model, pieces, cache)[1] == [False]
    with torch.no_grad():
        model.encoder.blocks[0].mlp[2].bias[0] += 0.5
    cache.belong_to(model.encoder)
    after, made = heard(model, pieces, cache)
    assert made == [True]
    assert not torch.equal(before, after)
    assert torch.equal(after, heard(model, pieces, cache_of(model))[0])


def test_an_encoder_s_digest_is_of_every_bit_of_it(model: StepAudio2) -> None:
    found = encoder_digest(model.encoder)
    assert encoder_digest(model.encoder) == found
    for parameter in (model.encoder.conv1.weight, model.encoder.positional_embedding.weight):
        with torch.no_grad():
            old = parameter.flatten()[-1].clone()
            parameter.flatten()[-1].copy_(torch.nextafter(old, torch.tensor(9.0)))
            assert encoder_digest(model.encoder) != found
            parameter.flatten()[-1].copy_(old)
    assert encoder_digest(model.encoder) == found
    assert encoder_digest(model.encoder.to(torch.bfloat16)) != found


def test_a_piece_that_is_under_work_twice_is_one_slot(model: StepAudio2) -> None:
    """Batches are made ahead of the step that encodes; by then the frames may be there."""
    pieces, cache = noises(16_000), cache_of(model)
    (first,), (second,) = hear(pieces, NUM_MELS, cache)[0], hear(pieces, NUM_MELS, cache)[0]
    assert isinstance(first, HeardPieces)
    assert isinstance(second, HeardPieces)
    assert first.slots[0] is second.slots[0]
    found = frames(model, first)
    broken = replace(second, mels_A=(torch.full_like(second.mels_A[0], float("nan")),))  # type: ignore[arg-type]
    assert torch.equal(frames(model, broken), found)


def test_runs_are_equal_bit_for_bit_however_much_is_kept(
    chord_pack: Any,
    make_recipe: Callable[..., TrainingRecipe],
    curriculum_of: Callable[[int], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Also where the encoder is trained again between two stages that hear through it."""
    ctc, text, align, tts = curriculum_of(2)
    stages = [ctc, text, align, {**ctc, "name": "more_ctc"}, {**align, "name": "align_again"}, tts]
    found = {}
    for most_bytes in (1, 3000, 1 << 24):
        run = tmp_path / str(most_bytes)
        recipe = make_recipe(stages, data={"cached_feature_bytes": most_bytes})
        if most_bytes == 3000:  # this one goes on with an empty cache
            train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), until="align")
        train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=most_bytes == 3000)
        rows = [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in read_rows(str(run))]
        found[most_bytes] = [rows, json.loads((run / "evaluation.json").read_text())]
    assert len(found[1][0]) == 12
    assert found[1] == found[3000] == found[1 << 24]
