"""Figures on held-out documents are what one gets by doing it by hand, and a run writes them once a stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from manifests.errors import RequestError
from manifests.scoring import scored_tokens
from training import code_reading
from training.attention import DocumentSpans
from training.config import model_config
from training.data import DocumentReader
from training.evaluation_recipe import Drawing
from training.examples import ExampleMaker
from training.generation import Answer, Prompt, generate
from training.grammar import Grammar
from training.held_out import HeldOut, held_out_splits
from training.inputs import open_inputs
from training.journal import read_rows
from training.model import StepAudio2
from training.plan import make_plan
from training.recipe import LossWeights, Measure, Task, TrainingRecipe
from training.run import train
from training.sampling import Sampling

Recipes = Callable[..., TrainingRecipe]
Curriculum = Callable[..., list[dict[str, Any]]]


def measuring(stages: list[dict[str, Any]], last: Sequence[str] = ("asr", "text")) -> list[dict[str, Any]]:
    """The stage ``align`` measures recognition, ``tts`` what is named."""
    measures = {"align": ["asr"], "tts": last}
    return [{**stage, "measures": measures[stage["name"]]} if stage["name"] in measures else stage for stage in stages]


@pytest.fixture
def opened(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[HeldOut, StepAudio2]:
    inputs = open_inputs(make_recipe(measuring(curriculum_of(2), list(Measure))), chord_pack.pack, chord_pack.tokenizer)
    splits = held_out_splits(inputs.recipe, inputs.pack, inputs.layouts)
    reader = DocumentReader(inputs.pack, 1 << 24)
    monkeypatch.setattr(code_reading, "STEPS", 60)
    fitted = code_reading.find_code_reader(inputs, str(tmp_path), reader)
    held_out = HeldOut(splits, reader, inputs.layouts, most=99, speaking=Drawing(), seed=0, code_reader=fitted)
    torch.manual_seed(0)
    vocabulary = inputs.tokenizer.vocabulary
    model = StepAudio2(model_config("micro"), vocabulary.num_rows, vocabulary.text_size)
    torch.nn.init.normal_(model.lm_head.weight, std=0.5)
    return held_out, model


def test_figures_are_those_of_each_document_alone(opened: tuple[HeldOut, StepAudio2]) -> None:
    held_out, model = opened
    (split,) = held_out.splits
    assert split.name == "test"
    row = held_out.row(model, list(Measure), None)
    maker, layouts = ExampleMaker(held_out.layouts, LossWeights()), held_out.layouts
    grammar = Grammar(layouts.vocabulary, layouts.ratio, [layouts.vocabulary.end_of_text])
    entries = [split.entries[place] for place in split.eligible[Task.ASR]]
    prompts = [Prompt.of_example(maker.make(Task.ASR, entry, held_out.reader.read(entry))) for entry in entries]
    most = 2 * max(len(prompt.ids) for prompt in prompts) + 16
    said, found, cut = [], [], 0
    for entry, prompt in zip(entries, prompts, strict=True):
        assert prompt.ids[-1] == layouts.vocabulary.audio_end
        (answer,) = generate(model, [prompt], grammar, Sampling(max_new_tokens=most))
        said.append(entry.text)
        cut += not answer.is_finished
        found.append(layouts.text.decode([token for token in answer.ids if token < layouts.vocabulary.text_size]))
    assert row["test_asr_documents"] == len(said) == 6
    assert row["test_asr_words"] == len(" ".join(said).split())
    assert row["test_asr_cut"] == cut
    references, hypotheses = ([" ".join(scored_tokens(text, None)) for text in texts] for texts in (said, found))
    assert row["test_asr_wer"] == pytest.approx(jiwer.wer(references, hypotheses))
    assert row["test_asr_cer"] is None

    losses = []
    for place in split.eligible[Task.TEXT]:
        ids = torch.from_numpy(maker.make(Task.TEXT, split.entries[place]).ids)
        whole = DocumentSpans.one_a_row([len(ids)])
        with torch.no_grad():
            logits = model.lm_head(model.hidden(ids[None], whole.positions(len(ids)), whole)[0])
        losses.append(F.cross_entropy(logits[:-1], ids[1:], reduction="none").numpy())
    assert row["test_text_loss"] == pytest.approx(float(np.concatenate(losses).mean()), rel=1e-5)

    code_reader = held_out.code_reader
    assert code_reader is not None
    longest = max(len(maker.make(Task.TTS, entry, held_out.reader.read(entry)).ids) for entry in entries)
    heard, read, ended, counts = [], [], [], []
    for entry in entries:
        document = held_out.reader.read(entry)
        prompt = Prompt.of_example(maker.make(Task.TTS, entry, document))
        assert prompt.ids[-1] == layouts.vocabulary.tts_start
        (answer,) = generate(model, [prompt], grammar, Sampling(max_new_tokens=2 * longest))
        ((_, codes),) = grammar.speeches(np.concatenate([prompt.ids[-1:], answer.ids]))
        real = document.turns[0].codes
        assert real is not None
        heard.append(code_reader.read(codes))
        read.append(code_reader.read(real))
        ended.append(answer.ids.tolist().index(layouts.vocabulary.tts_end) < 2 * longest - layouts.ratio.group)
        counts.append((len(codes), len(real)))
    assert row["test_tts_documents"] == 6
    assert row["test_tts_wer"] == pytest.approx(jiwer.wer(said, heard))
    assert row["test_tts_real_wer"] == pytest.approx(jiwer.wer(said, read))
    assert row["test_tts_finished"] == sum(ended) / 6
    spoken, real_ones = (sum(numbers) for numbers in zip(*counts, strict=True))
    assert row["test_tts_length_ratio"] == pytest.approx(spoken / real_ones)


def test_speech_that_is_the_documents_own_is_read_as_well_as_that(
    opened: tuple[HeldOut, StepAudio2], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says exactly the real codes: the reader's own errors are what is left."""
    held_out, model = opened
    maker = ExampleMaker(held_out.layouts, LossWeights())
    (split,) = held_out.splits
    examples = [maker.make(Task.TTS, e, held_out.reader.read(e)) for e in (split.entries[p] for p in split.eligible[Task.TTS])]
    answers = {}
    for example in examples:
        prompt = Prompt.of_example(example)
        ids = example.ids[len(prompt.ids) :]
        answers[prompt.ids.tobytes()] = Answer(ids, np.zeros(len(ids)), np.zeros(len(ids)), is_finished=True)
    monkeypatch.setattr(
        "training.held_out.generate", lambda model, prompts, *_, **__: [answers[prompt.ids.tobytes()] for prompt in prompts]
    )
    row = held_out.row(model, [Measure.TTS], None)
    assert row["test_tts_wer"] == row["test_tts_real_wer"]
    assert (row["test_tts_finished"], row["test_tts_length_ratio"]) == (1.0, 1.0)


def test_drawn_speech_is_the_same_each_time_and_moves_no_generator(opened: tuple[HeldOut, StepAudio2]) -> None:
    held_out, model = opened
    drawing = replace(held_out, speaking=Drawing(temperature=1.0, top_p=0.9))
    before = torch.get_rng_state()
    first, again = (drawing.row(model, [Measure.TTS], None) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert first != held_out.row(model, [Measure.TTS], None)


def test_a_run_writes_the_figures_once_a_stage_however_often_it_is_resumed(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path
) -> None:
    recipe = make_recipe(measuring(curriculum_of(2)))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(whole))
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), until="align")
    for _ in range(2):
        train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), until="align", resume=True)
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), resume=True)
    found = [[row for row in read_rows(str(run)) if "measured" in row] for run in (whole, parts)]
    assert found[0] == found[1]
    assert [(row["stage"], row["measured"]) for row in found[0]] == [("align", ["asr"]), ("tts", ["asr", "text"])]
    assert all(row["test_asr_documents"] == 6 for row in found[0])
    assert "test_text_loss" in found[0][1]


@pytest.mark.parametrize(
    ("splits", "message"), [(["train"], "is trained on"), (["elsewhere"], "elsewhere"), (["test"], "no document for task 'asr'")]
)
def test_splits_that_cannot_be_measured_are_refused_by_plan_and_run(
    chord_pack: Any,
    make_pack: Any,
    make_recipe: Recipes,
    curriculum_of: Curriculum,
    tmp_path: Path,
    splits: list[str],
    message: str,
) -> None:
    pack = chord_pack
    if splits == ["test"]:
        noise = np.random.default_rng(0).normal(0, 0.05, 8000).astype(np.float32)
        pack = make_pack(
            {"train": [(f"d{n}", text, noise) for n, text in enumerate(("so", "la", "mi"))], "test": [("t", "so", noise[:300])]}
        )
    recipe = make_recipe(measuring(curriculum_of(2)), data={"held_out_splits": splits})
    with pytest.raises(RequestError, match=message):
        make_plan(open_inputs(recipe, pack.pack, pack.tokenizer))
    with pytest.raises(RequestError, match=message):
        train(recipe, pack.pack, pack.tokenizer, str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
