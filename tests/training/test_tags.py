from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.contracts import MODEL_RATE_HZ
from manifests.errors import MismatchError, RequestError
from manifests.packs import Document, Turn
from pipeline.documents import MadeTurn, document_of
from pipeline.shards import TarredDocument
from training.batches import HeardExample, collate_ctc
from training.config import SIZES
from training.encoder_recipe import TagHead
from training.examples import Example
from training.features import log_mel
from training.inputs import open_inputs
from training.journal import read_rows
from training.model import StepAudio2
from training.objectives import NUM_KINDS, ctc_sums
from training.recipe import Task, TrainingRecipe
from training.run import train
from training.tags import UNKNOWN, tag_numbers

GENDER = TagHead(labels=("female", "male"))
EMOTION = TagHead(labels=("angry", "calm", "sad"), layer="emotions", weight=2.0)
CONFIG = SIZES["micro"]


def tagged(*clips: dict[str, Any]) -> Document:
    facts = {"clips": [{"tags": tags} for tags in clips]}
    return Document("a", {}, (Turn(None, "la", None, None, None, None, facts),), None)


def paralinguistics(gender: str | None, emotion: str | None = None) -> dict[str, Any]:
    """A clip's tags as K.json has them: a layer with a struct a dimension, and one of a single classifier."""
    told = {"value": gender, "confidence": 0.9, "posterior": None, "agreement": None, "source": "s"}
    return {"paralinguistics": {"gender": told, "age": None}, "emotions": {"value": emotion, "confidence": 0.5}}


def test_tags_are_numbers_of_the_recipe_s_labels_or_unknown() -> None:
    heads = {"gender": GENDER, "emotion": EMOTION}
    assert tag_numbers(tagged(paralinguistics("male", "angry")), heads) == (1, 0)
    # One abstained, the other is no class of the recipe.
    assert tag_numbers(tagged(paralinguistics(None, "surprised")), heads) == (UNKNOWN, UNKNOWN)
    assert tag_numbers(tagged(paralinguistics("male", "sad"), paralinguistics("female", "sad")), heads) == (UNKNOWN, 2)
    assert tag_numbers(tagged(paralinguistics("male")), {"age": TagHead(labels=("child", "adult"))}) == (UNKNOWN,)
    plain = tagged({"sounds": {"event": "music"}})
    assert tag_numbers(plain, {"event": TagHead(labels=("speech", "music"), layer="sounds")}) == (1,)


def test_a_layer_without_the_tag_is_named() -> None:
    with pytest.raises(MismatchError, match=r"layer 'sounds' .* has no column 'gender' .*it has event.*tags.gender.layer"):
        tag_numbers(tagged({"sounds": {"event": "music"}}), {"gender": TagHead(labels=("female", "male"), layer="sounds")})


def heard(seconds: float, tags: tuple[int, ...], seed: int) -> HeardExample:
    audio = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    ids = np.arange(3)
    kinds = np.zeros(3, np.uint8)
    example = Example(Task.CTC, f"d{seed}", ids, kinds, np.ones(3, np.float32), np.arange(3, dtype=np.int32), kinds > 0, (audio,))
    return HeardExample(example, log_mel(torch.from_numpy(audio), CONFIG.encoder.num_mels), tags)


def test_tag_loss_is_cross_entropy_over_the_mean_of_a_piece_s_own_frames() -> None:
    """Against each piece by itself, so that padding has no say; what is unknown has no loss, no gradient and no count."""
    heads = {"gender": GENDER, "emotion": EMOTION}
    torch.manual_seed(0)
    model = StepAudio2(CONFIG, 64, 32, {"gender": 2, "emotion": 3})
    pieces = [heard(1.0, (1, UNKNOWN), 0), heard(0.95, (0, UNKNOWN), 1)]
    (batch,) = collate_ctc(pieces, [1.0, 2.0])
    assert batch.weight == 6.0 + 2.0
    sums = ctc_sums(model, batch, heads)
    without = ctc_sums(model, batch)
    (sums.loss - without.loss).backward(retain_graph=True)
    own_losses = []
    for piece in pieces:
        mel = piece.mel_CM[None]
        num_valid = torch.tensor([mel.shape[2] - 2])
        frames = model.encode(mel, num_valid)[0, : int((num_valid + 1) // 2 // 2)]
        logits = model.tag_heads["gender"](frames.mean(0))
        own_losses.append(torch.nn.functional.cross_entropy(logits[None], torch.tensor([piece.tags[0]])))
    expected = float(torch.stack(own_losses).sum())
    assert float(sums.loss - without.loss) == pytest.approx(expected, rel=1e-4)
    assert sums.loss_K[NUM_KINDS:].tolist() == pytest.approx([expected, 0.0], rel=1e-4)
    assert sums.count_K[NUM_KINDS:].tolist() == [2.0, 0.0]
    assert torch.equal(sums.loss_K[:NUM_KINDS], without.loss_K)
    assert model.tag_heads["gender"].weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert not model.tag_heads["emotion"].weight.grad.any()  # type: ignore[union-attr]


def test_tag_heads_draw_nothing_that_the_rest_of_the_model_would_have_drawn() -> None:
    torch.manual_seed(0)
    without = StepAudio2(CONFIG, 64, 32)
    torch.manual_seed(0)
    having = StepAudio2(CONFIG, 64, 32, {"gender": 2}).state_dict()
    assert all(torch.equal(having[name], tensor) for name, tensor in without.state_dict().items())
    assert sorted(set(having) - set(without.state_dict())) == ["tag_heads.gender.bias", "tag_heads.gender.weight"]


def spoken_by(number: int, gender: str | None) -> TarredDocument:
    """Noise whose colour is its tag: white or low."""
    noise = np.random.default_rng(number).normal(0, 0.1, MODEL_RATE_HZ // 2)
    audio = (np.cumsum(noise) * 0.05 if gender == "male" else noise).astype(np.float32)
    facts = {"text": "la mi", "text_source": "source", "clips": [{"tags": paralinguistics(gender)}]}
    return document_of(f"d{number:02d}", "clip", None, [MadeTurn(facts, audio)], MODEL_RATE_HZ)


def tag_stage(**changes: Any) -> dict[str, Any]:
    rate = {"lr": 3e-3}
    return {
        "name": "ctc",
        "kind": "ctc",
        "steps": 24,
        "batch_documents": 12,
        "betas": (0.9, 0.98),
        "schedule": "constant",
        "train": {"encoder": rate, "ctc_head": rate, "tag_heads": {"lr": 1e-2}},
        "tags": {"gender": {"labels": ["female", "male"]}},
        **changes,
    }


@pytest.fixture(scope="module")
def tagged_pack(make_pack: Callable[..., Any]) -> Any:
    genders = ["female", "male", None] * 4
    documents = [spoken_by(number, gender) for number, gender in enumerate(genders)]
    return make_pack({"train": documents}, recipe={"tags_from": ["paralinguistics"]})


def test_an_encoder_learns_a_tag_beside_its_texts(
    tagged_pack: Any, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    train(make_recipe([tag_stage()]), tagged_pack.pack, tagged_pack.tokenizer, run)
    rows = list(read_rows(run))
    assert {row["count_tag_gender"] for row in rows} == {8}  # of twelve documents: nobody knows the others'
    assert rows[0]["loss_tag_gender"] == pytest.approx(np.log(2), abs=0.4)
    assert rows[-1]["accuracy_tag_gender"] == 1.0
    assert rows[-1]["loss_tag_gender"] < 0.6  # of log 2 at chance
    assert rows[-1]["grad_norm_tag_heads"] > 0
    assert rows[-1]["count_text"] > 0


def test_a_run_with_tags_and_augmentation_goes_on_bit_for_bit(
    tagged_pack: Any, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    augment = {"speed": {}, "noise": {"share": 1.0, "source": "pack"}, "spec": {}}
    stages = [tag_stage(name=name, steps=4, batch_documents=4, augment=augment) for name in ("one", "two")]
    recipe = make_recipe(stages, checkpoint_every=2)
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    train(recipe, tagged_pack.pack, tagged_pack.tokenizer, whole)
    train(recipe, tagged_pack.pack, tagged_pack.tokenizer, parts, until="one")
    train(recipe, tagged_pack.pack, tagged_pack.tokenizer, parts, resume=True)
    columns = ("loss", "grad_norm", "loss_tag_gender")
    losses = [[[row.get(column) for column in columns] for row in read_rows(run)] for run in (whole, parts)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 8


def test_a_pack_without_the_layer_is_refused(chord_pack: Any, make_recipe: Callable[..., TrainingRecipe]) -> None:
    with pytest.raises(RequestError, match=r"stage 'ctc': tags.gender reads layer 'paralinguistics', .* of none; pack again"):
        open_inputs(make_recipe([tag_stage()]), chord_pack.pack, chord_pack.tokenizer)
