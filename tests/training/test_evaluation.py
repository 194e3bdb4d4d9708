from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.data import DocumentReader
from training.documents import read_split
from training.evaluation import asr_example, other_texts, swap_pairs
from training.examples import ExampleMaker
from training.inputs import open_inputs
from training.layouts import Layouts
from training.plan import make_plan
from training.prompts import Prompts
from training.recipe import LossWeights, Task, TrainingRecipe
from training.run import train


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_audio_goes_to_documents_of_another_text_each_once(texts: list[str]) -> None:
    donors = other_texts(texts)
    commonest = max((texts.count(text) for text in texts), default=0)
    if not texts or 2 * commonest > len(texts):
        assert donors == []
        return
    assert sorted(donors) == list(range(len(texts)))
    assert all(texts[donor] != texts[place] for place, donor in enumerate(donors))


def test_the_swap_is_the_same_every_time() -> None:
    texts = ["b", "a", "c", "a", "d"]
    assert other_texts(texts) == other_texts(texts)


def test_swapped_audio_is_anothers_at_the_length_of_the_own(chord_pack: Any) -> None:
    """Both sides have the same tokens, so nothing but what is heard can tell them apart."""
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())
    split = read_split(pack, "train", layouts, [Task.ASR], 512)
    reader, maker = DocumentReader(pack, 1 << 24), ExampleMaker(layouts, LossWeights())
    pairs = swap_pairs(split, 12)
    lengths = [(entry.turns[0].num_samples, donor.turns[0].num_samples) for entry, donor in pairs]
    assert any(own < other for own, other in lengths)  # type: ignore[operator]
    assert any(own > other for own, other in lengths)  # type: ignore[operator]
    for entry, donor in pairs:
        own, other = (asr_example(maker, reader, entry, source) for source in (entry, donor))
        assert np.array_equal(own.ids, other.ids)
        assert np.array_equal(own.audio[0], reader.read(entry).turns[0].audio)  # type: ignore[arg-type]
        (heard,), whole = other.audio, reader.read(donor).turns[0].audio
        assert whole is not None and len(heard) == entry.turns[0].num_samples  # noqa: PT018 (narrows whole)
        assert np.array_equal(heard, np.concatenate([whole] * (len(heard) // len(whole) + 1))[: len(heard)])


def test_a_swap_that_cannot_be_measured_is_refused_before_anything_is_written(
    make_pack: Any,
    make_recipe: Callable[..., TrainingRecipe],
    curriculum_of: Callable[[int], list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 8000)).astype(np.float32)
    pack = make_pack(
        {
            "train": [
                (f"d{number}", text, audio) for number, (text, audio) in enumerate(zip(("so", "so", "la"), noise, strict=True))
            ]
        }
    )
    recipe = make_recipe(curriculum_of(4))
    with pytest.raises(RequestError, match=r"split 'train': audio cannot be swapped.*at most half"):
        train(recipe, pack.pack, pack.tokenizer, str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RequestError, match="audio cannot be swapped"):
        make_plan(open_inputs(recipe, pack.pack, pack.tokenizer))
    unmeasured = [{**stage, "measure_swap": False} if stage["kind"] == "pretrain" else stage for stage in curriculum_of(4)]
    assert train(make_recipe(unmeasured), pack.pack, pack.tokenizer, str(tmp_path / "run"), until="encoder_ctc").steps == 4
