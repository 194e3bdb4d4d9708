"""Training over 1, 2 and 4 ranks beside a reference of one process: whole batches, plain logits, plain autograd.

``ranked`` says what every rank runs. Gradients are compared absolutely and unclipped: AdamW and clipping would hide a factor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.training import ranked
from tests.training.launched import Launched
from training.model import StepAudio2
from training.objectives import features
from training.trainer import freeze_all_but

pytestmark = pytest.mark.slow

WORLDS = (1, 2, 4)
LARGEST_ERROR = 1e-5  # of a tensor's largest value, float32
LIMIT_S = 300.0  # for all scenarios of all worlds: a rank that waits for ever fails here

Gradients = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def bench(chord_pack: Any) -> ranked.Bench:
    return ranked.Bench.open(chord_pack.pack, chord_pack.tokenizer)


@pytest.fixture(scope="module")
def found(chord_pack: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What rank 0 of each world wrote down, by scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    program = [ranked.__file__, chord_pack.pack, chord_pack.tokenizer]
    for launched in [Launched([*program, str(folder / f"{world}.pt")], world) for world in WORLDS]:
        launched.outputs(LIMIT_S)
    return {world: torch.load(folder / f"{world}.pt", weights_only=False) for world in WORLDS}


@pytest.fixture(scope="module")
def errors() -> Iterator[dict[str, dict[int, float]]]:
    """Largest errors by scenario and world; written to the file that STEPWELL_ERRORS names, for the lab notes."""
    told: dict[str, dict[int, float]] = {}
    yield told
    if path := os.environ.get("STEPWELL_ERRORS"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)


def reference(bench: ranked.Bench, name: str, rows: str, model: StepAudio2 | None = None) -> tuple[float, Gradients]:
    """Loss and gradients of the whole batch: the weighted mean of all targets' losses, by automatic differentiation alone."""
    stage = bench.stage(name)
    model = bench.model() if model is None else model
    trained = freeze_all_but(model, stage)
    (batch,) = bench.batches(stage, rows)
    heard = features(model, batch.heard, batch.features_P)
    hidden_BTD = model.hidden(batch.ids_BT, batch.positions_BT, batch.spans, batch.heard_BT, heard)
    log_probs_BTV = model.lm_head(hidden_BTD[:, :-1]).log_softmax(-1)
    nll_BT = -log_probs_BTV.gather(-1, batch.ids_BT[:, 1:, None])[..., 0]
    weights_BT = batch.weights_BT[:, 1:]
    loss = (nll_BT * weights_BT).sum() / weights_BT.sum()
    return float(loss), gradients_of(loss, trained)


def ctc_reference(bench: ranked.Bench) -> tuple[float, Gradients]:
    """Each document alone, unpadded: minus its log likelihood, by the number of all labels."""
    stage = bench.stage("encoder_ctc", micro_batches=1)
    model = bench.model()
    trained = freeze_all_but(model, stage)
    total, labels = torch.zeros(()), 0
    for batch in bench.data(stage).next_step():
        for place in range(len(batch.document_ids)):
            valid, ids = batch.heard.num_valid_A[place, None], batch.labels_AL[place, : batch.num_labels_A[place]]
            mel_1CM = batch.heard.mels_ACM[place, None]
            log_probs_1FL = model.ctc_logits(mel_1CM, valid).log_softmax(-1)[:, : int((valid + 1) // 2 // 2)]
            blank = log_probs_1FL.shape[-1] - 1
            lengths = torch.tensor([log_probs_1FL.shape[1]]), torch.tensor([len(ids)])
            total = total + F.ctc_loss(log_probs_1FL.transpose(0, 1), ids[None], *lengths, blank=blank, reduction="sum")
            labels += len(ids)
    return float(total / labels), gradients_of(total / labels, trained)


def gradients_of(loss: torch.Tensor, trained: dict[str, torch.nn.Parameter]) -> Gradients:
    if not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


def largest_error(gradients: Gradients, expected: Gradients) -> float:
    """Of all tensors, in parts of each one's largest value."""
    assert gradients.keys() == expected.keys()
    return max((float((gradients[n] - e).abs().max() / e.abs().max()) for n, e in expected.items()), default=0.0)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("scenario", ["main mixed 1", "main mixed 2", "main mixed 4", "recomputed"])
def test_loss_and_every_gradient_are_those_of_the_whole_batch(
    found: dict[int, dict[str, Any]], bench: ranked.Bench, errors: dict[str, dict[int, float]], world: int, scenario: str
) -> None:
    """Mixed tasks, ragged numbers of targets; micro-batches of one, two and four parts a rank, blocks that run twice."""
    if scenario not in found[world]:
        pytest.skip("eight rows make no four micro-batches on each of four ranks")
    check(found, errors, world, scenario, *reference(bench, "main", "mixed"))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["main", "align", "head"])
@pytest.mark.parametrize("rows", ["half", "deaf"])
def test_ranks_without_audio_neither_hang_nor_change_a_gradient(
    found: dict[int, dict[str, Any]],
    bench: ranked.Bench,
    errors: dict[str, dict[int, float]],
    world: int,
    name: str,
    rows: str,
) -> None:
    """Half of the ranks hear nothing, or nobody does; ``align`` trains the adaptor alone, ``head`` nothing that a row's input reaches."""
    loss, expected = reference(bench, name, rows)
    assert (not expected) == (name == "align" and rows == "deaf")
    assert any(key.startswith("adapter.") for key in expected) == (rows == "half" and name != "head")
    check(found, errors, world, f"{name} {rows} 2", loss, expected)


@pytest.mark.parametrize("world", WORLDS)
def test_a_ctc_stage_has_the_loss_and_gradients_of_its_documents_alone(
    found: dict[int, dict[str, Any]], bench: ranked.Bench, errors: dict[str, dict[int, float]], world: int
) -> None:
    check(found, errors, world, "ctc", *ctc_reference(bench))


def check(
    found: dict[int, dict[str, Any]],
    errors: dict[str, dict[int, float]],
    world: int,
    scenario: str,
    loss: float,
    expected: Gradients,
) -> None:
    told = found[world][scenario]
    error = largest_error(told["gradients"], expected)
    errors.setdefault(scenario, {})[world] = error
    assert told["row"]["loss"] == pytest.approx(loss, rel=1e-6)
    assert error <= LARGEST_ERROR
    norm = float(torch.stack([g.double().square().sum() for g in expected.values()]).sum().sqrt()) if expected else 0.0
    assert told["row"]["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_rows_tell_of_all_ranks(found: dict[int, dict[str, Any]], bench: ranked.Bench, world: int) -> None:
    (batch,) = bench.batches(bench.stage("main"), "mixed")
    row, alone = (dict(found[n]["main mixed 1"]["row"]) for n in (world, 1))
    assert row["tokens"] == batch.num_tokens
    assert sum(value for name, value in row.items() if name.startswith("count_")) == len(batch.targets_N)
    assert row.pop("stage") == alone.pop("stage") == "main"
    assert row == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("world", WORLDS[1:])
def test_a_divided_reduction_would_be_seen(found: dict[int, dict[str, Any]], bench: ranked.Bench, world: int) -> None:
    """What is sharded comes out at half, what is summed by hand does not: the comparison above is one of absolute values."""
    _, expected = reference(bench, "main", "mixed")
    divided = found[world]["divided"]["gradients"]
    assert largest_error(divided, expected) == pytest.approx(0.5, rel=1e-4)
    halved = {name: g / 2 if not name.startswith("adapter.") else g for name, g in expected.items()}
    assert largest_error(divided, halved) <= LARGEST_ERROR


@pytest.mark.parametrize("world", WORLDS)
def test_clipping_scales_by_the_norm_of_all_ranks(found: dict[int, dict[str, Any]], bench: ranked.Bench, world: int) -> None:
    _, expected = reference(bench, "main", "mixed")
    norm = float(torch.stack([g.double().square().sum() for g in expected.values()]).sum().sqrt())
    clipped = {name: g * (1e-3 / norm) for name, g in expected.items()}
    assert largest_error(found[world]["clipped"]["gradients"], clipped) <= LARGEST_ERROR


@pytest.mark.parametrize("world", WORLDS)
def test_what_one_rank_cannot_compute_stops_all_alike_and_moves_nothing(found: dict[int, dict[str, Any]], world: int) -> None:
    told = found[world]["not finite"]
    assert len(told["said"]) == world
    assert set(told["said"]) == {told["said"][0]}
    assert "nan" in told["said"][0]
    assert told["moved"] == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("cause", ["loss_not_finite", "gradient_not_finite", "its audio"])
def test_all_ranks_blame_the_same_document(found: dict[int, dict[str, Any]], world: int, cause: str) -> None:
    """Each looks at its own documents, and over ranks a decoder runs on all of them together."""
    told = found[world][f"blamed for {cause}"]
    assert told["named"] == [[told["bad"]]] * world
    assert told["of"] == told["all"]


@pytest.mark.parametrize("world", WORLDS)
def test_growth_draws_the_rows_that_it_draws_alone(found: dict[int, dict[str, Any]], bench: ranked.Bench, world: int) -> None:
    """Bit for bit, behind an evaluation that left the head whole; and the next step trains on them."""
    grown, alone = found[world]["grown"], found[1]["grown"]
    before = bench.model().get_parameter("lm_head.weight")
    assert not torch.equal(grown["weights"]["lm_head.weight"], before)
    assert all(torch.equal(tensor, alone["weights"][name]) for name, tensor in grown["weights"].items())
    assert grown["row"]["loss"] == pytest.approx(alone["row"]["loss"], rel=1e-6)
    assert largest_error(grown["gradients"], alone["gradients"]) <= LARGEST_ERROR


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("stage", ["encoder_ctc", "main"])
def test_five_steps_come_to_the_same_weights(
    found: dict[int, dict[str, Any]], bench: ranked.Bench, errors: dict[str, dict[int, float]], world: int, stage: str
) -> None:
    """No weight is off by more than a thousandth of what the five steps moved its tensor at most.

    Far more than a gradient is off: where one is near zero, AdamW goes by its sign, and that is rounding.
    """
    told, alone = found[world][f"five steps of {stage}"], found[1][f"five steps of {stage}"]
    start = dict(bench.model().named_parameters())
    assert [row["loss"] for row in told["rows"]] == pytest.approx([row["loss"] for row in alone["rows"]], rel=1e-5)
    off = {}
    for name, expected in alone["weights"].items():
        moved = float((expected - start[name]).abs().max())
        off[name] = float((told["weights"][name] - expected).abs().max()) / moved if moved else 0.0
        assert moved or torch.equal(told["weights"][name], expected)
    errors.setdefault(f"weights behind five steps of {stage}", {})[world] = max(off.values())
    assert max(off.values()) < 1e-3
