"""Operations of real steps are those that torch counts, and MFU leaves out what the model does not need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.conftest import Bench
from training.batches import Batch, CtcBatch, HeardPieces, collate, hear
from training.config import model_config
from training.cost import MAC, Work, stage_flops
from training.feature_cache import FeatureCache
from training.machines import Peak
from training.metering import StepMeter, computed_work, needed_work
from training.model import StepAudio2
from training.objectives import NUM_KINDS, frames
from training.recipe import CtcStage, TrainingRecipe
from training.trainer import StageTrainer, masked_ids

PEAK = Peak("made up", 1e12, is_measured=False)


def all_pairs(trainer: StageTrainer, batches: Sequence[Batch] | Sequence[CtcBatch]) -> float:
    """Operations on the pairs within documents that the causal mask leaves out: the counter takes no notice of it."""
    masked = masked_ids(trainer.stage, trainer.vocabulary)
    lengths = [length for batch in batches if isinstance(batch, Batch) for length in batch.spans.lengths]
    parts = stage_flops(
        trainer.model.config,
        trainer.vocabulary.num_rows if masked is None else masked.start,
        trainer.model.ctc_head.out_features,
        Work(pairs=sum(length * (length - 1) / 2 for length in lengths)),
        trainer.stage.train,
        is_ctc=isinstance(trainer.stage, CtcStage),
        recomputes=trainer.model.model.recomputes,
    )
    return sum(part.total for part in parts.values())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_operations_of_a_real_step_are_those_that_torch_counts(
    bench: Bench, demo_recipe: TrainingRecipe, number: int, recompute: bool
) -> None:
    recipe = demo_recipe.model_copy(update={"recompute": recompute})
    trainer, data = bench(recipe, recipe.stages[number])
    batches = data.next_step()
    found = StepMeter(trainer, PEAK).count(batches)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trainer.train_step(batches)
    # Sums by kind are no part of the model, and products to the counter: losses, entropies and right answers of each target.
    targets = sum(len(batch.targets_N) for batch in batches if isinstance(batch, Batch))
    metrics = 3 * MAC * NUM_KINDS * targets
    assert found.computed + all_pairs(trainer, batches) + metrics == float(counter.get_total_flops())
    assert 0 < found.needed <= found.computed


def test_what_is_needed_is_what_the_examples_hold(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    """The step's documents one by one, without a batch around them."""
    _, data = bench(demo_recipe, demo_recipe.stages[3])
    (batch, *_) = data.next_step()
    assert isinstance(batch, Batch)
    work = needed_work(batch)
    own = (batch.spans.numbers(batch.ids_BT.shape[1]) >= 0).sum()
    assert work.positions == int(own) < computed_work(batch).positions == batch.ids_BT.numel()
    assert work.targets == int((batch.weights_BT > 0).sum())
    assert work.patches == int(batch.heard_BT.sum())
    assert computed_work(batch).pairs == work.pairs


def test_padding_moves_hfu_and_not_mfu(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[1]
    trainer, data = bench(demo_recipe, stage)
    batches = list(data.next_step())
    pad = torch.nn.functional.pad
    wider = [
        replace(batch, **{name: pad(getattr(batch, name), (0, 100)) for name in ("ids_BT", "kinds_BT", "weights_BT", "heard_BT")})
        for batch in batches
        if isinstance(batch, Batch)
    ]
    meter = StepMeter(trainer, PEAK)
    plain, padded = (meter.columns(meter.count(found), 2.0) for found in (batches, wider))
    assert plain["mfu"] == padded["mfu"] == plain["flops"] / 2e12
    assert plain["mfu"] < plain["hfu"] < padded["hfu"]


def test_what_a_cache_brings_is_not_counted() -> None:
    """A piece that stands twice in a batch is encoded once, and one that is kept not at all; the adaptor hears all of them."""
    config = model_config("micro")
    model = StepAudio2(config, 300, 290)
    cache = FeatureCache(1 << 24)
    cache.belong_to(model.encoder)
    rng = np.random.default_rng(0)
    short, long = (rng.normal(0, 0.1, size).astype(np.float32) for size in (8000, 8200))
    (alone,), _ = hear([short], config.encoder.num_mels, cache)
    frames(model, alone)
    (heard,), places = hear([long, short, long], config.encoder.num_mels, cache)
    assert isinstance(heard, HeardPieces)
    batch = replace(collate([], 8, config.encoder.num_mels, 0), heard=(heard,), features_P=places)
    whole = Work.of_example(0, 0, [len(long)])
    needed, computed = needed_work(batch), computed_work(batch)
    assert (needed.mel_frames, needed.encoder_pairs) == (computed.mel_frames, computed.encoder_pairs)
    assert (needed.mel_frames, needed.encoder_pairs) == (whole.mel_frames, whole.encoder_pairs)
    assert (needed.patches, computed.patches) == (len(places), 3 * whole.patches)
    with FlopCounterMode(display=False) as counter:
        frames(model, heard)
    with FlopCounterMode(display=False) as own:
        model.encode(heard.mels_A[0][None], torch.tensor([heard.mels_A[0].shape[1] - 2]))  # type: ignore[index]
    assert counter.get_total_flops() == own.get_total_flops()
