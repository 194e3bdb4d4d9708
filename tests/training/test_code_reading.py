from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.errors import RequestError
from manifests.store import Store
from training import code_reading
from training.code_reading import find_code_reader, fit, read_documents, real_codes
from training.data import DocumentReader
from training.inputs import Inputs, open_inputs
from training.recipe import Task, TrainingRecipe

TTS = {
    "name": "tts",
    "kind": "pretrain",
    "tasks": {"tts": 1},
    "train": {"decoder": {"lr": 1e-3}},
    "steps": 1,
    "sequence_length": 256,
    "sequences_per_step": 1,
}


@pytest.fixture
def opened(
    chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], monkeypatch: pytest.MonkeyPatch
) -> tuple[Inputs, DocumentReader]:
    """Training documents of chords, and as many steps as learn them."""
    monkeypatch.setattr(code_reading, "STEPS", 60)
    inputs = open_inputs(make_recipe([TTS]), chord_pack.pack, chord_pack.tokenizer)
    return inputs, DocumentReader(inputs.pack, 1 << 24)


def test_a_reader_learns_what_codes_say_and_is_kept(opened: tuple[Inputs, DocumentReader], tmp_path: Path) -> None:
    inputs, reader = opened
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fitted = find_code_reader(inputs, str(tmp_path), reader)
    assert torch.equal(torch.get_rng_state(), before)
    entries = [inputs.train.entries[place] for place in inputs.train.eligible[Task.TTS]]
    said = [fitted.read(real_codes(entry, reader)) for entry in entries]
    assert [entry.text for entry in entries] == said
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = find_code_reader(inputs, str(tmp_path), reader)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == files
    assert [again.read(real_codes(entry, reader)) for entry in entries] == said
    # One of other documents is not taken for it.
    other = replace(inputs, recipe=inputs.recipe.model_copy(update={"seed": 9}))
    find_code_reader(other, str(tmp_path), reader)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_the_tokenizers_own_reader_is_taken(opened: tuple[Inputs, DocumentReader], tmp_path: Path, chord_pack: Any) -> None:
    inputs, reader = opened
    learnt, letters = read_documents(inputs.train, reader, seed=0)
    store = Store(str(tmp_path / "tokenizer"))
    fit(learnt, letters, seed=0).save(store)
    found = find_code_reader(replace(inputs, tokenizer=replace(inputs.tokenizer, uri=store.uri)), str(tmp_path / "run"), reader)
    assert found.letters == letters
    assert not (tmp_path / "run").exists()


def test_fitting_is_a_function_of_documents_and_seed(
    opened: tuple[Inputs, DocumentReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_reading, "STEPS", 3)
    inputs, reader = opened
    learnt, letters = read_documents(inputs.train, reader, seed=0)
    one, same, other = (fit(learnt, letters, seed).head.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_documents_without_codes_to_spell_are_refused(
    make_pack: Any, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    """Five frames cannot spell a long text."""
    noise = np.random.default_rng(0).normal(0, 0.05, 3200).astype(np.float32)
    made = make_pack({"train": [("d0", "a text of many letters", noise)]})
    inputs = open_inputs(make_recipe([TTS]), made.pack, made.tokenizer)
    with pytest.raises(RequestError, match="take tts out of the stages' measures"):
        find_code_reader(inputs, str(tmp_path), DocumentReader(inputs.pack, 1 << 20))
    assert list(tmp_path.iterdir()) == []
