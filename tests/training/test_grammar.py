"""Whatever the grammar lets through is an interleave, and every interleave is let through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError, RequestError
from tokenization.interleave import Ratio, interleave
from tokenization.vocabulary import Vocabulary
from training.grammar import Grammar, Ids

CPU = torch.device("cpu")
SMALL = Vocabulary.small(20, num_codes=9)
ratios = st.builds(Ratio, st.integers(1, 3), st.integers(1, 5))


def grammar_of(ratio: Ratio, may_speak: bool = True, vocabulary: Vocabulary = SMALL) -> Grammar:
    return Grammar(vocabulary, ratio, [vocabulary.end_of_text], may_speak=may_speak)


def walk(grammar: Grammar, prompt: list[int], limit: int, rng: np.random.Generator, ending: float) -> list[int]:
    """Ids drawn from what is allowed, set by set, until a stop or the limit."""
    state, found = grammar.start(prompt), []
    for step in range(limit):
        sets = list(grammar.allowed(state, limit - step))
        assert sets
        closing = [which for which in sets if which in (Ids.TTS_END, Ids.STOP, Ids.TTS_PAD, Ids.AUDIO_PAD)]
        which = closing[rng.integers(len(closing))] if closing and rng.random() < ending else sets[rng.integers(len(sets))]
        ids = torch.nonzero(grammar.mask(which, CPU)).flatten()
        found.append(int(ids[rng.integers(len(ids))]))
        if which is Ids.STOP:
            break
        state = grammar.advance(state, found[-1])
    return found


@settings(max_examples=150, deadline=None)
@given(ratios, st.integers(2, 120), st.integers(0, 10**6), st.floats(0, 0.5), st.booleans())
def test_random_answers_deinterleave_and_come_back_the_same(
    ratio: Ratio, limit: int, seed: int, ending: float, begins_in_speech: bool
) -> None:
    grammar = grammar_of(ratio)
    prompt = [3, SMALL.tts_start] if begins_in_speech else [3]
    answer = walk(grammar, prompt, limit, np.random.default_rng(seed), ending)
    whole = np.array(prompt + answer)
    starts, ends = (np.flatnonzero(whole == token) for token in (SMALL.tts_start, SMALL.tts_end))
    speeches = grammar.speeches(whole)
    assert len(speeches) == len(starts) == len(ends)
    for (text, codes), start, end in zip(speeches, starts, ends, strict=True):
        assert np.array_equal(interleave(text, codes, SMALL, ratio)[0], whole[start + 1 : end])


@settings(max_examples=100, deadline=None)
@given(ratios, st.lists(st.integers(0, 19), max_size=9), st.lists(st.integers(0, 8), max_size=30))
def test_every_interleave_is_in_the_grammar(ratio: Ratio, text: list[int], codes: list[int]) -> None:
    grammar = grammar_of(ratio)
    spoken = interleave(text, codes, SMALL, ratio)[0].tolist()
    state = grammar.start([5])
    for token in [SMALL.tts_start, *spoken, SMALL.tts_end, 7, SMALL.end_of_text]:
        assert grammar.mask(grammar.allowed(state), CPU)[token]
        state = grammar.advance(state, token)
    assert grammar.start([5, SMALL.tts_start, *spoken]) is not None


def test_nothing_else_is_in_the_grammar() -> None:
    """All strings of up to three groups over one id of each set, at 1:2: what is allowed is what ``interleave`` can make."""
    ratio, grammar = Ratio(1, 2), grammar_of(Ratio(1, 2))
    alphabet = [4, SMALL.tts_pad, SMALL.audio_id(6), SMALL.audio_pad_id, SMALL.tts_end]

    def reached(prefix: list[int]) -> set[tuple[int, ...]]:
        state = grammar.start([SMALL.tts_start, *prefix])
        if len(prefix) > 9:
            return set()
        found: set[tuple[int, ...]] = set()
        for token in alphabet:
            if grammar.mask(grammar.allowed(state), CPU)[token]:
                found |= {tuple(prefix)} if token == SMALL.tts_end else reached([*prefix, token])
        return found

    made = {
        tuple(interleave([4] * num_text, [6] * num_codes, SMALL, ratio)[0].tolist())
        for num_text in range(4)
        for num_codes in range(7)
    }
    assert reached([]) == made


def test_outside_of_speech_there_is_text_and_stop_alone() -> None:
    for grammar in (grammar_of(Ratio(), may_speak=False), grammar_of(Ratio(), False, Vocabulary.published())):
        mask = grammar.mask(grammar.allowed(grammar.start([1])), CPU)
        own = grammar.vocabulary
        assert mask[own.end_of_text]
        assert mask[own.special("<tool_call>")]
        assert not mask[own.text_size + 4 :].any() if own is SMALL else not mask[own.text_size :].any()
    speaks = grammar_of(Ratio())
    assert speaks.mask(speaks.allowed(None), CPU)[SMALL.tts_start]
    assert not speaks.mask(speaks.allowed(None, 1), CPU)[SMALL.tts_start]  # could not be closed


def test_a_stop_is_never_spoken_text() -> None:
    published = Vocabulary.published()  # its stop is one of the text tokenizer's own ids
    grammar = Grammar(published, Ratio(), [published.end_of_text, published.eot])
    state = grammar.start([published.tts_start])
    assert not grammar.mask(grammar.allowed(state), CPU)[published.end_of_text]
    assert grammar.mask(grammar.allowed(None), CPU)[[published.end_of_text, published.eot]].all()


def test_a_prompt_whose_speech_is_no_interleave_is_refused() -> None:
    with pytest.raises(RequestError, match="speech goes on with id 4, which at 1:4 is none of"):
        grammar_of(Ratio()).start([SMALL.tts_start, 4, 4])
    with pytest.raises(ContractError, match="each must be closed"):
        grammar_of(Ratio()).speeches([SMALL.tts_start, 4])
