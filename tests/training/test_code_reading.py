from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training import code_reading
from training.code_reading import find_code_reader, fit, fitted_code_reader, real_codes
from training.data import DocumentReader
from training.documents import Split, read_split
from training.layouts import Layouts
from training.prompts import Prompts
from training.recipe import Task


@pytest.fixture
def split(chord_pack: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Split, DocumentReader]:
    """Training documents of chords, and as many steps as learn them."""
    monkeypatch.setattr(code_reading, "STEPS", 60)
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts(asr="", tts=""))
    return read_split(pack, "train", layouts, [Task.TTS], 256), DocumentReader(pack, 1 << 24)


def test_a_reader_learns_what_codes_say_and_is_kept(split: tuple[Split, DocumentReader], tmp_path: Path) -> None:
    documents, reader = split
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fitted = fitted_code_reader(str(tmp_path), documents, reader, ["pack", "tokenizer"], seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    entries = [documents.entries[place] for place in documents.eligible[Task.TTS]]
    said = [fitted.read(real_codes(entry, reader)) for entry in entries]
    assert [entry.text for entry in entries] == said
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = fitted_code_reader(str(tmp_path), documents, reader, ["pack", "tokenizer"], seed=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == files
    assert [again.read(real_codes(entry, reader)) for entry in entries] == said
    fitted_code_reader(str(tmp_path), documents, reader, ["another pack", "tokenizer"], seed=0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_fitting_is_a_function_of_documents_and_seed(
    split: tuple[Split, DocumentReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_reading, "STEPS", 3)
    learnt, letters = code_reading._read(*split, seed=0)
    one, same, other = (fit(learnt, letters, seed).head.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_split_without_codes_to_spell_is_refused(make_pack: Any, tmp_path: Path) -> None:
    """Five frames cannot spell a long text."""
    noise = np.random.default_rng(0).normal(0, 0.05, 3200).astype(np.float32)
    made = make_pack({"train": [("d0", "a text of many letters", noise)]})
    pack, tokenizer = Pack.open(made.pack), Tokenizer.open(made.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())
    documents = read_split(pack, "train", layouts, [Task.TTS], 1000)
    assert find_code_reader(made.tokenizer) is None
    with pytest.raises(RequestError, match="take tts out of the stages' measures"):
        fitted_code_reader(str(tmp_path), documents, DocumentReader(pack, 1 << 20), ["k"], seed=0)
    assert list(tmp_path.iterdir()) == []
