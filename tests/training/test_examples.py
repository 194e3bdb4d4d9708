from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError
from tests.training import made_documents as documents
from tests.training.made_documents import Made
from tokenization.interleave import Ratio, interleave
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.examples import PATCH_PAD, Example, ExampleMaker, recombine
from training.prompts import Prompts
from training.recipe import LossWeights, RepeatRecipe, Task

VOCABULARY = Vocabulary.small(256)
MAKER = ExampleMaker(documents.layouts(), LossWeights())
SPECIAL, TEXT, CODE, TTS_PAD, AUDIO_PAD = (
    TokenKind.SPECIAL,
    TokenKind.TEXT,
    TokenKind.AUDIO_CODE,
    TokenKind.TTS_PAD,
    TokenKind.AUDIO_PAD,
)
START, END, STOP = VOCABULARY.audio_start, VOCABULARY.audio_end, VOCABULARY.end_of_text
TTS_START, TTS_END = VOCABULARY.tts_start, VOCABULARY.tts_end
HEARD = [START, *[VOCABULARY.audio_patch] * 6, END]  # half a second


def ids_of(text: str) -> list[int]:
    return documents.BYTES.encode(text)


def example(task: Task, made: Made, maker: ExampleMaker = MAKER) -> Example:
    return maker.make(task, made.entry(), made.document)


def targets(example: Example) -> list[int]:
    return example.ids[example.weights > 0].tolist()


def spoken(made: Made, number: int) -> list[int]:
    """The interleave of a turn."""
    turn = made.document.turns[number]
    assert turn.codes is not None
    return interleave(ids_of(turn.text or ""), turn.codes, VOCABULARY)[0].tolist()


def test_asr_is_wrapped_patches_then_text_and_stop_with_loss_on_these_only() -> None:
    made = documents.clip("hi")
    found = example(Task.ASR, made)
    assert found.ids.tolist() == [START, *[VOCABULARY.audio_patch] * 13, END, *ids_of("hi"), STOP]
    assert targets(found) == [*ids_of("hi"), STOP]
    assert found.is_heard.tolist() == [False, *[True] * 13, False, False, False, False]
    assert found.kinds.tolist() == [SPECIAL] * 15 + [TEXT] * 2 + [SPECIAL]
    assert found.document_id == "k"
    assert len(found.audio) == 1
    np.testing.assert_array_equal(found.audio[0], made.document.turns[0].audio)


def test_text_has_loss_on_all_but_the_first_token() -> None:
    made = documents.made("text", [documents.turn("abc")])
    found = MAKER.make(Task.TEXT, made.entry())
    assert found.ids.tolist() == [*ids_of("abc"), STOP]
    assert targets(found) == [*ids_of("bc"), STOP]


def test_tts_has_loss_from_behind_tts_start_to_the_stop_pads_included() -> None:
    made = documents.clip("hi", num_codes=5)
    found = example(Task.TTS, made)
    codes = (made.document.turns[0].codes.astype(int) + VOCABULARY.audio_base).tolist()  # type: ignore[union-attr]
    pad = VOCABULARY.audio_pad_id
    h, i = ids_of("hi")
    inner = [h, *codes[:4], i, codes[4], pad, pad, pad]
    assert found.ids.tolist() == [h, i, TTS_START, *inner, TTS_END, STOP]
    assert targets(found) == [*inner, TTS_END, STOP]
    assert found.kinds[3:-2].tolist() == [TEXT, *[CODE] * 4, TEXT, CODE, *[AUDIO_PAD] * 3]
    assert found.audio == ()


def test_translations_ask_in_the_targets_language_and_give_text_or_speech() -> None:
    made = documents.pair(
        documents.turn("bonjour", 8000, language="fr"), documents.turn("hello", num_samples=None, num_codes=9, language="en")
    )
    prompts = Prompts(s2tt="to {language}:", t2st="read in {language}:", s2st="say in {language}:", languages={"en": "English"})
    maker = ExampleMaker(documents.layouts(prompts), LossWeights())
    source, target, answer = ids_of("bonjour"), ids_of("hello"), [*spoken(made, 1), TTS_END, STOP]
    expected = {
        Task.S2TT: ([*ids_of("to English:"), *HEARD], [*target, STOP]),
        Task.T2ST: ([*ids_of("read in English:"), *source, TTS_START], answer),
        Task.S2ST: ([*ids_of("say in English:"), *HEARD, TTS_START], answer),
    }
    for task, (given_ids, emitted) in expected.items():
        found = example(task, made, maker)
        assert found.ids.tolist() == [*given_ids, *emitted], task
        assert targets(found) == emitted, task
        assert len(found.audio) == (task is not Task.T2ST), task


def test_a_continuation_has_loss_on_all_but_the_first_utterance() -> None:
    made = documents.continuation("one", "two", "three")
    found = example(Task.CONTINUATION, made)
    first, second, third = ([TTS_START, *spoken(made, number), TTS_END] for number in range(3))
    assert found.ids.tolist() == [*first, *second, *third, STOP]
    assert targets(found) == [*second, *third, STOP]
    assert found.audio == ()


def test_a_continuation_in_text_hears_the_first_utterance_and_writes_the_rest_a_line_each() -> None:
    found = example(Task.CONTINUATION_TEXT, documents.continuation("one", "two", "three"))
    assert found.ids.tolist() == [*HEARD, *ids_of("two\nthree"), STOP]
    assert targets(found) == [*ids_of("two\nthree"), STOP]


def test_a_conversation_hears_the_human_and_speaks_each_answer_to_its_stop() -> None:
    made = documents.conversation("hi", "hello", "bye", "see you")
    found = example(Task.CONVERSATION, made)
    answers = [[*spoken(made, number), TTS_END, STOP] for number in (1, 3)]
    assert found.ids.tolist() == [*HEARD, TTS_START, *answers[0], *HEARD, TTS_START, *answers[1]]
    assert targets(found) == [*answers[0], *answers[1]]
    assert [len(audio) for audio in found.audio] == [8000, 8000]
    np.testing.assert_array_equal(found.audio[1], made.document.turns[2].audio)


def test_a_caption_answers_the_prompt_of_its_language() -> None:
    made = documents.clip("hi", num_samples=8000, caption_zh="很慢")
    prompts = Prompts(captioning={"en": "How?", "zh": "?"})
    found = example(Task.CAPTIONING, made, ExampleMaker(documents.layouts(prompts), LossWeights()))
    assert found.ids.tolist() == [*ids_of("?"), *HEARD, *ids_of("很慢"), STOP]
    assert targets(found) == [*ids_of("很慢"), STOP]


def test_labels_of_ctc_all_have_weight_and_their_audio_no_position() -> None:
    found = example(Task.CTC, documents.clip("hi"))
    assert found.ids.tolist() == targets(found) == ids_of("hi")
    assert [len(audio) for audio in found.audio] == [16_000]
    assert not found.is_heard.any()


def test_long_audio_is_heard_in_pieces_with_a_wrapper_each_and_a_short_tail_is_left_out() -> None:
    made = documents.clip("hi", num_samples=800_320)
    found = example(Task.ASR, made)
    piece = [START, *[VOCABULARY.audio_patch] * 313, END]
    assert found.ids.tolist() == [*piece, *piece, *ids_of("hi"), STOP]
    assert [len(audio) for audio in found.audio] == [400_000, 400_000]
    np.testing.assert_array_equal(np.concatenate(found.audio), made.document.turns[0].audio[:800_000])  # type: ignore[index]
    longer = example(Task.ASR, documents.clip("hi", num_samples=800_321))
    assert [len(audio) for audio in longer.audio] == [400_000, 400_000, 321]
    assert len(longer.ids) == len(found.ids) + 3


def test_prompts_stand_in_front_without_loss_and_no_merge_crosses_their_border() -> None:
    from tokenization.text import TextTokenizer

    text = TextTokenizer.train(["ab ab ab ab"], 258)
    assert len(text.encode("ab")) == 1
    maker = ExampleMaker(documents.layouts(Prompts(tts="a"), text), LossWeights())
    made = documents.clip("b", num_codes=4)
    found = maker.make(Task.TTS, made.entry(text), made.document)
    assert found.ids[:2].tolist() == [*text.encode("a"), *text.encode("b")]
    assert found.weights[:3].tolist() == [0.0, 0.0, 0.0]


def test_a_target_has_the_stages_weight_of_its_kind_and_all_else_none() -> None:
    weights = LossWeights(text=0.5, audio_code=2.0, tts_pad=0.25, audio_pad=0.125, special=3.0)
    found = example(Task.TTS, documents.clip("hi", num_codes=5), ExampleMaker(documents.layouts(), weights))
    group = [0.5, 2.0, 2.0, 2.0, 2.0], [0.5, 2.0, 0.125, 0.125, 0.125]
    assert found.weights.tolist() == [0.0, 0.0, 0.0, *group[0], *group[1], 3.0, 3.0]
    assert (found.weights.dtype, found.positions.dtype) == (np.float32, np.int32)
    assert found.positions.tolist() == list(range(len(found.ids)))


def test_kinds_of_an_interleave_at_another_ratio() -> None:
    maker = ExampleMaker(documents.layouts(ratio=Ratio(2, 3)), LossWeights())
    found = example(Task.TTS, documents.clip("abc", num_codes=2), maker)
    assert found.kinds[4:-2].tolist() == [TEXT, TEXT, CODE, CODE, AUDIO_PAD, TEXT, TTS_PAD, AUDIO_PAD, AUDIO_PAD, AUDIO_PAD]


@given(num_text=st.integers(1, 9), num_codes=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_kinds_agree_with_what_stands_there(num_text: int, num_codes: int) -> None:
    found = example(Task.TTS, documents.clip("x" * num_text, num_codes=num_codes))
    inner = slice(num_text + 1, -2)
    ids, kinds = found.ids[inner], found.kinds[inner]
    assert ids[kinds == TEXT].tolist() == ids_of("x") * num_text
    assert int((kinds == CODE).sum()) == num_codes
    assert VOCABULARY.is_audio(ids[kinds == CODE]).all()
    assert set(ids[kinds == TTS_PAD].tolist()) <= {VOCABULARY.tts_pad}
    assert set(ids[kinds == AUDIO_PAD].tolist()) <= {VOCABULARY.audio_pad_id}
    assert len(ids) == 5 * max(num_text, -(-num_codes // 4))


@given(ids=st.lists(st.integers(0, 255), min_size=1, max_size=12), extra=st.integers(0, 30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_repeat_has_the_form_of_asr_with_the_text_in_order_among_placeholders(ids: list[int], extra: int, seed: int) -> None:
    places = len(ids) + extra
    maker = ExampleMaker(documents.layouts(Prompts(asr="P")), LossWeights())
    found = maker.repeat("key", ids, places, np.random.default_rng(seed))
    assert found.ids[:2].tolist() == [*ids_of("P"), START]
    assert found.ids[places + 2] == END
    heard = found.ids[2 : places + 2]
    assert heard[heard != VOCABULARY.special(PATCH_PAD)].tolist() == ids
    assert targets(found) == [*ids, STOP]
    assert not found.is_heard.any()


def test_a_repeat_that_is_not_stretched_is_as_long_as_its_layout_says() -> None:
    made = documents.made("text", [documents.turn("abc")])
    entry, rng = made.entry(), np.random.default_rng(0)
    assert MAKER.repeat(entry.key, ids_of("abc"), 3, rng).ids.tolist() == MAKER.make(Task.REPEAT, entry).ids.tolist()


def test_repeat_needs_a_place_for_each_token() -> None:
    with pytest.raises(ContractError, match="3 tokens in 2 places"):
        MAKER.repeat("key", [1, 2, 3], 2, np.random.default_rng(0))


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


def test_a_document_that_is_not_what_the_manifest_says_breaks_its_contract() -> None:
    made = documents.clip("hi")
    turn = made.document.turns[0]
    bare = replace(made.document, turns=(replace(turn, audio=None, codes=None),))
    for task in (Task.ASR, Task.TTS, Task.CTC):
        with pytest.raises(ContractError, match="pack again"):
            MAKER.make(task, made.entry(), bare)
    shorter = replace(made.document, turns=(replace(turn, codes=np.zeros(3, np.uint16)),))
    with pytest.raises(ContractError, match="turn 0: 3 codes, the manifest says 25"):
        MAKER.make(Task.TTS, made.entry(), shorter)
    with pytest.raises(ContractError, match="no turn 0 to read"):
        MAKER.make(Task.ASR, made.entry())
    with pytest.raises(ContractError, match="cannot serve 's2tt': not_offered"):
        MAKER.make(Task.S2TT, made.entry(), made.document)
