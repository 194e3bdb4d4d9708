"""Documents of a batch alone, and which of a step's are to blame: bad ones are made of good ones by hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import Bench
from training.alone import each_alone, nothing
from training.batches import Batch, CtcBatch, HeardExample, collate, collate_ctc
from training.blame import blame
from training.examples import NO_DOCUMENT, Example
from training.feature_cache import FeatureCache
from training.features import log_mel
from training.objectives import Sums
from training.recipe import GroupRate, Schedule, Task, TrainingRecipe
from training.spikes import Cause, Rung, SpikeRecipe, SpikeWatch
from training.trainer import StageTrainer

NUM_MELS, WINDOW = 40, 8


@pytest.fixture(scope="module")
def watched(bench: Bench) -> Bench:
    """``bench``, watched with a small window."""
    return lambda recipe, stage: bench(recipe, stage, SpikeWatch(SpikeRecipe(window=WINDOW)))


@pytest.mark.parametrize("stage", range(4))
def test_documents_alone_have_the_losses_that_they_have_together(watched: Bench, demo_recipe: TrainingRecipe, stage: int) -> None:
    trainer, data = watched(demo_recipe, demo_recipe.stages[stage])
    for batch in data.next_step():
        alone = list(each_alone(batch))
        assert tuple(key for one in alone for key in one.document_ids) == batch.document_ids
        assert sum(one.weight for one in alone) == pytest.approx(batch.weight)
        assert sum(one.num_tokens for one in alone) == batch.num_tokens
        with torch.no_grad():
            whole, parts = trainer.sums(batch), [trainer.sums(one) for one in alone]
        assert float(sum(part.loss for part in parts)) == pytest.approx(float(whole.loss), rel=1e-5)
        torch.testing.assert_close(sum(part.count_K for part in parts), whole.count_K)


def test_pieces_that_are_encoded_one_by_one_are_told_apart_too(watched: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, data = watched(demo_recipe, demo_recipe.stages[3])
    examples = [data.documents[task].example(position) for task in (Task.ASR, Task.TTS) for position in range(3)]
    cache = FeatureCache(1 << 24)
    cache.belong_to(trainer.model.encoder)
    rows = [examples[3:5], examples[:3], [], examples[5:]]
    with torch.no_grad():
        for cached in (None, cache, cache):  # the second time over, frames are there already
            batch = collate(rows, 1024, NUM_MELS, 1, cached)
            found = [float(trainer.sums(one).loss) for one in each_alone(batch)]
            expected = [float(trainer.sums(collate([[one]], len(one.ids), NUM_MELS, 1)).loss) for row in rows for one in row]
            assert found == pytest.approx(expected, rel=1e-5)


def test_nothing_can_be_worked_through(watched: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, _ = watched(demo_recipe, demo_recipe.stages[3])
    total, norms = trainer.gradients([nothing()], 3.0)
    assert (float(total.loss), float(norms["grad_norm"])) == (0.0, 0.0)


def other_words(example: Example) -> Example:
    """The text behind the audio in another order of ids: a transcript of something else."""
    is_target = example.weights > 0
    ids = example.ids.copy()
    ids[is_target] = np.random.default_rng(0).integers(260, 300, int(is_target.sum()))
    return replace(example, ids=ids)


def deafening(example: Example) -> Example:
    """Audio that overflows single precision."""
    return replace(example, audio=tuple(np.full_like(audio, 1e30) for audio in example.audio))


def as_ctc(examples: Sequence[Example]) -> list[CtcBatch]:
    return collate_ctc([HeardExample(one, log_mel(torch.from_numpy(one.audio[0]), NUM_MELS)) for one in examples])


def as_packed(examples: Sequence[Example]) -> list[Batch]:
    half = len(examples) // 2
    return [collate([rows[::2], rows[1::2]], 1024, NUM_MELS, 1) for rows in (examples[:half], examples[half:])]


def ring(trainer: StageTrainer, batches: Sequence[Any]) -> Rung:
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(Rung) as told:
        trainer.train_step(batches)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.model.state_dict().items())
    return told.value


@pytest.mark.parametrize("kind", ["ctc", "packed"])
def test_what_is_not_finite_is_named_alone(watched: Bench, demo_recipe: TrainingRecipe, kind: str) -> None:
    trainer, data = watched(demo_recipe, demo_recipe.stages[0 if kind == "ctc" else 3])
    documents = data.documents[Task.ASR] if kind == "packed" else data._heard._documents
    examples = [documents.example(position) for position in range(8)]
    for place in (1, 6):
        examples[place] = deafening(examples[place])
    batches = as_ctc(examples) if kind == "ctc" else as_packed(examples)
    rung = ring(trainer, batches)
    assert rung.finding.cause is Cause.LOSS_NOT_FINITE
    found = blame(trainer, batches, rung)
    assert {suspect.key for suspect in found.documents} == {examples[1].document_id, examples[6].document_id}
    assert found.num_documents == 8


def test_so_is_what_has_a_loss_and_no_gradient(
    watched: Bench, demo_recipe: TrainingRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, data = watched(demo_recipe, demo_recipe.stages[3])
    examples = [data.documents[Task.ASR].example(position) for position in range(8)]
    bad, whole = {examples[place].document_id for place in (0, 5)}, trainer.sums

    def sums(batch: Any) -> Sums:
        """A square root of zero, whose slope is infinite."""
        found, root = whole(batch), (trainer.model.lm_head.weight.sum() * 0.0).sqrt()
        return replace(found, loss=found.loss + root) if bad & set(batch.document_ids) else found

    monkeypatch.setattr(trainer, "sums", sums)
    batches = as_packed(examples)
    rung = ring(trainer, batches)
    assert rung.finding.cause is Cause.GRADIENT_NOT_FINITE
    assert {suspect.key for suspect in blame(trainer, batches, rung).documents} == bad


@pytest.fixture(scope="module")
def taught(watched: Bench, demo_recipe: TrainingRecipe) -> tuple[StageTrainer, list[Example]]:
    """A trainer that knows what ten documents say, with a full window, and the documents."""
    rates = {group: GroupRate(lr=1e-2) for group in demo_recipe.stages[3].train}
    stage = demo_recipe.stages[3].model_copy(update={"train": rates, "schedule": Schedule.CONSTANT, "clip_grad_norm": 10.0})
    trainer, data = watched(demo_recipe, stage)
    examples = [data.documents[Task.ASR].example(position) for position in range(10)]
    for _ in range(25):
        trainer.train_step(as_packed(examples))
    trainer.stage = stage.model_copy(update={"train": {group: GroupRate(lr=1e-9) for group in stage.train}})
    for _ in range(WINDOW):  # a plateau
        trainer.train_step(as_packed(examples))
    return trainer, examples


@pytest.fixture
def learned(taught: tuple[StageTrainer, list[Example]]) -> tuple[StageTrainer, list[Example]]:
    """The same, to be spoiled."""
    return copy.deepcopy(taught[0]), list(taught[1])


def test_documents_of_other_words_are_named_until_the_rest_is_usual(learned: tuple[StageTrainer, list[Example]]) -> None:
    trainer, examples = learned
    for place in (2, 7):
        examples[place] = other_words(examples[place])
    batches = as_packed(examples)
    rung = ring(trainer, batches)
    assert rung.finding.cause is Cause.LOSS
    found = blame(trainer, batches, rung)
    assert {suspect.key for suspect in found.documents} == {examples[2].document_id, examples[7].document_id}
    worst = found.documents[0]
    assert worst.mean_nll > 2.0 > worst.usual


@pytest.mark.parametrize("cause", [Cause.LOSS_NOT_FINITE, Cause.LOSS, Cause.GRADIENT])
def test_spans_of_many_documents_are_to_blame_without_a_name(learned: tuple[StageTrainer, list[Example]], cause: Cause) -> None:
    """Neither the document in whose place they stand, nor another in their stead; a bad one beside them is named all the same."""
    trainer, examples = learned
    if cause is Cause.GRADIENT:
        trainer.watch.recipe = SpikeRecipe(window=WINDOW, threshold=1e9, grad_threshold=3.5)
    spoil = deafening if cause is Cause.LOSS_NOT_FINITE else other_words
    examples[2] = replace(spoil(examples[2]), document_id=NO_DOCUMENT)
    for expected in ([], [examples[7].document_id]):
        if expected:
            examples[7] = spoil(examples[7])
        batches = as_packed(examples)
        rung = ring(trainer, batches)
        assert rung.finding.cause is cause
        found = blame(trainer, batches, rung)
        assert ([suspect.key for suspect in found.documents], found.num_documents) == (expected, 10)


def test_a_large_gradient_is_blamed_on_the_document_that_has_it(learned: tuple[StageTrainer, list[Example]]) -> None:
    trainer, examples = learned
    trainer.watch.recipe = SpikeRecipe(window=WINDOW, threshold=1e9, grad_threshold=3.5)
    examples[4] = other_words(examples[4])
    batches = as_packed(examples)
    rung = ring(trainer, batches)
    assert rung.finding.cause is Cause.GRADIENT
    found = blame(trainer, batches, rung)
    assert [suspect.key for suspect in found.documents] == [examples[4].document_id]
    assert found.documents[0].grad_norm == pytest.approx(rung.finding.grad_norm, rel=0.2)


def test_where_the_model_is_off_no_document_is_named(learned: tuple[StageTrainer, list[Example]]) -> None:
    trainer, examples = learned
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(-1.0)
    batches = as_packed(examples)
    rung = ring(trainer, batches)
    assert blame(trainer, batches, rung).documents == []
