from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError
from manifests.packs import Document
from tokenization.interleave import Ratio
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.examples import PATCH_PAD, Example, ExampleMaker, recombine
from training.recipe import LossWeights, RepeatRecipe, Task

VOCABULARY = Vocabulary.small(300)
MAKER = ExampleMaker(VOCABULARY, Ratio())
AUDIO = np.zeros(16_000, dtype=np.float32)  # 13 patches
PATCH, START, END, STOP = VOCABULARY.audio_patch, VOCABULARY.audio_start, VOCABULARY.audio_end, VOCABULARY.end_of_text


def targets(example: Example) -> list[int]:
    return example.ids[example.weights > 0].tolist()


def test_asr_is_wrapped_patches_then_text_and_stop_with_loss_on_these_only() -> None:
    example = MAKER.asr("k", [7, 8], AUDIO)
    assert example.ids.tolist() == [START, *[PATCH] * 13, END, 7, 8, STOP]
    assert targets(example) == [7, 8, STOP]
    assert example.is_heard.tolist() == [False, *[True] * 13, False, False, False, False]
    assert example.kinds.tolist() == [TokenKind.SPECIAL] * 15 + [TokenKind.TEXT] * 2 + [TokenKind.SPECIAL]


def test_text_has_loss_on_all_but_the_first_token() -> None:
    example = MAKER.text("k", [7, 8, 9])
    assert example.ids.tolist() == [7, 8, 9, STOP]
    assert targets(example) == [8, 9, STOP]


def test_tts_has_loss_from_behind_tts_start_to_the_stop_pads_included() -> None:
    example = MAKER.tts("k", [7, 8], np.arange(5, dtype=np.uint16))
    audio, pad = VOCABULARY.audio_base, VOCABULARY.audio_pad_id
    spoken = [7, audio, audio + 1, audio + 2, audio + 3, 8, audio + 4, pad, pad, pad]
    assert example.ids.tolist() == [7, 8, VOCABULARY.tts_start, *spoken, VOCABULARY.tts_end, STOP]
    assert targets(example) == [*spoken, VOCABULARY.tts_end, STOP]
    kinds = [TokenKind(kind) for kind in example.kinds[3:-2]]
    assert kinds == [
        TokenKind.TEXT,
        *[TokenKind.AUDIO_CODE] * 4,
        TokenKind.TEXT,
        TokenKind.AUDIO_CODE,
        *[TokenKind.AUDIO_PAD] * 3,
    ]


def test_kinds_of_an_interleave_at_another_ratio() -> None:
    example = ExampleMaker(VOCABULARY, Ratio(2, 3)).tts("k", [7, 8, 9], np.arange(2, dtype=np.uint16))
    assert [TokenKind(kind).name for kind in example.kinds[4:-2]] == [
        *("TEXT", "TEXT", "AUDIO_CODE", "AUDIO_CODE", "AUDIO_PAD"),
        *("TEXT", "TTS_PAD", "AUDIO_PAD", "AUDIO_PAD", "AUDIO_PAD"),
    ]


def test_a_target_has_the_stages_weight_of_its_kind_and_all_else_none() -> None:
    weights = LossWeights(text=0.5, audio_code=2.0, tts_pad=0.25, audio_pad=0.125, special=3.0)
    example = ExampleMaker(VOCABULARY, Ratio(), weights).tts("k", [7, 8], np.arange(5, dtype=np.uint16))
    group = [0.5, 2.0, 2.0, 2.0, 2.0], [0.5, 2.0, 0.125, 0.125, 0.125]
    assert example.weights.tolist() == [0.0, 0.0, 0.0, *group[0], *group[1], 3.0, 3.0]
    assert (example.weights.dtype, example.positions.dtype) == (np.float32, np.int32)
    assert example.positions.tolist() == list(range(len(example.ids)))


@given(num_text=st.integers(1, 9), num_codes=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_kinds_of_an_interleave_agree_with_what_it_holds(num_text: int, num_codes: int) -> None:
    example = MAKER.tts("k", list(range(num_text)), np.arange(num_codes, dtype=np.uint16))
    spoken = slice(num_text + 1, -2)
    ids, kinds = example.ids[spoken], example.kinds[spoken]
    assert ids[kinds == TokenKind.TEXT].tolist() == list(range(num_text))
    assert (ids[kinds == TokenKind.AUDIO_CODE] - VOCABULARY.audio_base).tolist() == list(range(num_codes))
    assert set(ids[kinds == TokenKind.TTS_PAD].tolist()) <= {VOCABULARY.tts_pad}
    assert set(ids[kinds == TokenKind.AUDIO_PAD].tolist()) <= {VOCABULARY.audio_pad_id}
    assert len(ids) == 5 * max(num_text, -(-num_codes // 4))


@given(ids=st.lists(st.integers(0, 299), min_size=1, max_size=12), extra=st.integers(0, 30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_repeat_has_the_form_of_asr_with_the_text_in_order_among_placeholders(ids: list[int], extra: int, seed: int) -> None:
    places = len(ids) + extra
    example = MAKER.repeat("k", ids, places, np.random.default_rng(seed))
    assert example.ids[0] == START
    assert example.ids[places + 1] == END
    heard = example.ids[1 : places + 1]
    assert heard[heard != VOCABULARY.special(PATCH_PAD)].tolist() == ids
    assert targets(example) == [*ids, STOP]
    assert not example.is_heard.any()


def test_repeat_needs_a_place_for_each_token() -> None:
    with pytest.raises(ContractError, match="3 tokens in 2 places"):
        MAKER.repeat("k", [1, 2, 3], 2, np.random.default_rng(0))


def test_recombined_texts_are_spans_of_the_packs_own() -> None:
    recipe = RepeatRecipe(max_spans=3, max_span_tokens=2)
    texts = [(1, 2, 3), (10, 20)]
    rng = np.random.default_rng(0)
    made = [recombine(texts, recipe, rng) for _ in range(200)]
    assert {len(ids) for ids in made} == set(range(1, 7))
    assert len({tuple(ids) for ids in made}) > 100
    pairs = {pair for ids in made if len(ids) == 2 for pair in [tuple(ids)]}
    assert (1, 2) in pairs  # a span as it stands
    assert any(left >= 10 > right for left, right in pairs)  # and spans of two texts


def test_a_document_without_what_the_task_reads_breaks_its_contract() -> None:
    bare = Document("k", {}, None, None)
    for task in (Task.ASR, Task.TTS, Task.CTC):
        with pytest.raises(ContractError, match="pack again"):
            MAKER.of_document(task, bare, [1])
