from __future__ import annotations

import pytest
import torch

from manifests.errors import ContractError, RequestError
from tests.training.conftest import Bench
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.batches import collate
from training.config import model_config
from training.examples import Example
from training.model import GROUP_PREFIXES, StepAudio2
from training.objectives import token_sums
from training.recipe import Group, GroupRate, Logits, LossWeights, Schedule, Task, TrainingRecipe
from training.spikes import NothingLeft
from training.trainer import StageTrainer, rate_at, trained_names


@pytest.mark.parametrize("stage", range(4))
def test_what_is_frozen_stays_bit_for_bit_and_has_no_optimizer_state(
    bench: Bench, demo_recipe: TrainingRecipe, stage: int
) -> None:
    trainer, data = bench(demo_recipe, demo_recipe.stages[stage])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    for _ in range(2):
        trainer.train_step(data.next_step())
    trained = {group.value for group in demo_recipe.stages[stage].train}
    for group, prefixes in GROUP_PREFIXES.items():
        names = [name for name in before if name.startswith(prefixes) and "positional" not in name]
        moved = [name for name in names if not torch.equal(before[name], trainer.model.state_dict()[name])]
        assert bool(moved) == (group in trained), group
    positions = "encoder.positional_embedding.weight"
    assert torch.equal(before[positions], trainer.model.state_dict()[positions])
    held = {id(parameter) for parameter in trainer.optimizer.state}
    assert held <= {id(parameter) for parameter in trainer.trained.values()}


def test_gradients_of_what_the_next_stage_freezes_are_freed(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    first, data = bench(demo_recipe, demo_recipe.stages[0])
    first.train_step(data.next_step())
    assert any(parameter.grad is not None for parameter in first.model.parameters())
    StageTrainer(first.model, demo_recipe.stages[1], Vocabulary.small(300))
    assert all(parameter.grad is None for parameter in first.model.parameters())


@pytest.mark.parametrize("stage", range(4))
def test_micro_batches_change_nothing_but_rounding(bench: Bench, demo_recipe: TrainingRecipe, stage: int) -> None:
    """Token counts differ between the parts, so a mean of means would show."""
    weights = LossWeights(text=1.0, audio_code=0.7, tts_pad=0.2, audio_pad=0.3, special=0.5)
    rows, grads = [], []
    for parts in (1, 2, 4):
        chosen = demo_recipe.stages[stage].model_copy(update={"micro_batches": parts, "loss_weights": weights})
        trainer, data = bench(demo_recipe, chosen)
        row = trainer.train_step(data.next_step())
        rows.append(
            {k: v for k, v in row.items() if k.startswith(("loss", "accuracy", "entropy", "count", "grad_norm", "tokens"))}
        )
        grads.append({name: p.grad.clone() for name, p in trainer.trained.items() if p.grad is not None})
    for row, grad in zip(rows[1:], grads[1:], strict=True):
        assert row == pytest.approx(rows[0], rel=1e-4)
        for name, expected in grads[0].items():
            torch.testing.assert_close(grad[name], expected, atol=1e-5, rtol=1e-3)


def test_loss_is_the_weighted_mean_over_targets(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    weights = {"text": 1.0, "audio_code": 0.0, "tts_pad": 0.5, "audio_pad": 0.25, "special": 2.0}
    stage = demo_recipe.stages[3].model_copy(update={"loss_weights": LossWeights(**weights)})
    trainer, data = bench(demo_recipe, stage)
    batches = data.next_step()
    row = trainer.train_step(batches)
    counts = {kind: row.get(f"count_{kind}", 0) for kind in weights}
    expected = sum(weights[kind] * counts[kind] * row.get(f"loss_{kind}", 0.0) for kind in weights)
    assert row["loss"] == pytest.approx(expected / sum(weights[kind] * counts[kind] for kind in weights), rel=1e-5)
    assert counts["audio_code"] == 0  # what has no weight is not worked out
    assert sum(counts.values()) == sum(len(batch.targets_N) for batch in batches)


def test_packed_documents_have_the_losses_and_gradients_of_each_alone(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    """Whatever stands before a document in its row, behind it, or in other rows."""
    trainer, data = bench(demo_recipe, demo_recipe.stages[3])
    documents = [data.documents[task].example(position) for task in (Task.TTS, Task.ASR) for position in range(4)]

    def step(rows: list[list[Example]], width: int) -> tuple[float, dict[str, torch.Tensor]]:
        trainer.model.zero_grad()
        loss = token_sums(trainer.model, collate(rows, width, 40, 1)).loss
        loss.backward()
        return float(loss), {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trainer.trained.items()
        }

    alone = [step([[document]], len(document.ids)) for document in documents]
    loss, gradients = step([documents[:1], documents[1:6], documents[6:], []], 1024)
    assert loss == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(found[name] for _, found in alone), atol=1e-4, rtol=1e-3)


def test_a_step_without_audio_leaves_the_adaptor_where_it_is(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, data = bench(demo_recipe, demo_recipe.stages[3])
    before = {name: p.detach().clone() for name, p in trainer.trained.items() if name.startswith("adapter.")}
    row = trainer.train_step([collate([[data.documents[Task.TTS].example(0)]], 512, 40, 1)])
    assert row["grad_norm_adaptor"] == 0.0 < row["grad_norm_decoder"]
    assert all(torch.equal(value, trainer.trained[name]) for name, value in before.items())


def test_norms_by_group_make_up_the_whole_and_are_taken_before_clipping(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[3].model_copy(update={"clip_grad_norm": 1e-3, "micro_batches": 1})
    trainer, data = bench(demo_recipe, stage)
    row = trainer.train_step(data.next_step())
    parts = {group.value: row[f"grad_norm_{group.value}"] for group in stage.train}
    assert row["grad_norm"] == pytest.approx(sum(part**2 for part in parts.values()) ** 0.5)
    clipped = {group: float(sum(p.grad.square().sum() for _, p in trainer.model.groups()[group])) ** 0.5 for group in parts}
    for group, norm in parts.items():
        assert clipped[group] == pytest.approx(norm * 1e-3 / row["grad_norm"], rel=1e-3)


def test_audio_ids_are_out_of_the_softmax_until_the_vocabulary_is_full(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[1]
    full, data = bench(demo_recipe, stage)
    batches = data.next_step()
    text, _ = bench(demo_recipe, stage.model_copy(update={"vocabulary": Logits.TEXT}))
    rows = [trainer.train_step(batches) for trainer in (full, text)]
    audio = slice(full.vocabulary.audio_base, None)
    assert rows[1]["loss"] < rows[0]["loss"] - 1.0  # most of an untrained model's probability lies on audio ids
    assert full.model.lm_head.weight.grad[audio].any()
    assert not text.model.lm_head.weight.grad[audio].any()


def test_rates_warm_up_and_follow_a_cosine_to_their_end(demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[0].model_copy(update={"steps": 21, "warmup_steps": 4})
    rate = GroupRate(lr=1.0, lr_end=0.1)
    rates = [rate_at(rate, step, stage) for step in range(21)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[12] == pytest.approx(0.55)
    assert rates[20] == pytest.approx(0.1)
    assert rate_at(GroupRate(lr=1.0), 15, stage) == 1.0
    linear = stage.model_copy(update={"schedule": Schedule.LINEAR})
    assert [rate_at(rate, step, linear) for step in (4, 8, 20)] == pytest.approx([1.0, 0.775, 0.1])


def test_a_pattern_freezes_weights_of_a_trained_group_and_must_match_some(demo_recipe: TrainingRecipe) -> None:
    named = {"adaptor": ["adapter.conv.weight", "adapter.linear1.bias"], "decoder": ["model.norm.weight"]}
    stage = demo_recipe.stages[2].model_copy(update={"frozen": ("adapter.linear*",)})
    assert trained_names(named, stage) == {Group.ADAPTOR: ["adapter.conv.weight"]}
    for pattern in ("adaptor.*", "model.norm.*"):  # a slip, and a group that the stage does not train
        with pytest.raises(RequestError, match="matches no weight of the groups that it trains"):
            trained_names(named, stage.model_copy(update={"frozen": (pattern,)}))
    with pytest.raises(RequestError, match="nothing is left"):
        trained_names(named, stage.model_copy(update={"frozen": ("adapter.*",)}))


def test_norms_biases_and_the_embedding_are_not_decayed(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, _ = bench(demo_recipe, demo_recipe.stages[3])
    names = {id(parameter): name for name, parameter in trainer.trained.items()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            is_matrix = parameter.ndim > 1 and "embed_tokens" not in names[id(parameter)]
            assert group["weight_decay"] == (0.1 if is_matrix else 0.0), names[id(parameter)]


def test_every_patch_needs_its_feature(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, _ = bench(demo_recipe, demo_recipe.stages[2])
    with pytest.raises(ContractError, match="2 audio features for 3 patches"):
        trainer.model.embed(torch.zeros(1, 5, dtype=torch.long), torch.tensor([[0, 1, 1, 1, 0]]).bool(), torch.zeros(2, 32))


def test_the_model_has_the_published_names_and_number_of_weights(demo_recipe: TrainingRecipe) -> None:
    with torch.device("meta"):
        mini = StepAudio2(model_config("mini"), 158_720, 151_665)
    names = [name for name in mini.state_dict() if not name.startswith("ctc_head.")]
    counted = {
        prefix: sum(name.startswith(prefix) for name in names) for prefix in ("model.", "lm_head.", "encoder.", "adapter.")
    }
    assert counted == {"model.": 338, "lm_head.": 1, "encoder.": 487, "adapter.": 6}
    size = sum(p.numel() for name, p in mini.named_parameters() if not name.startswith("ctc_head."))
    assert size == pytest.approx(8.315e9, rel=1e-3)
    tiny = StepAudio2(model_config("tiny"), 7000, 400)
    small = sum(p.numel() for group in ("encoder", "adaptor", "decoder") for _, p in tiny.groups()[group])
    assert 2e6 < small < 4e6
    assert len(TokenKind) == 6


def test_a_step_of_which_all_was_left_out_is_no_spike(bench: Bench, demo_recipe: TrainingRecipe) -> None:
    trainer, _ = bench(demo_recipe, demo_recipe.stages[3])
    with pytest.raises(NothingLeft, match=r"step 1: every document of it was left out"):
        trainer.train_step([])
    assert trainer.watch.num_spikes == 0
