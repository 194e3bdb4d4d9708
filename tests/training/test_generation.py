"""Answers over a cache: equal to transformers' and to the trainer's numbers, whole where they speak, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import RequestError
from tokenization.interleave import Ratio
from tokenization.vocabulary import Vocabulary
from training.attention import DocumentSpans
from training.batches import hear
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.generation import Answer, Prompt, generate
from training.grammar import Grammar
from training.head import head_losses
from training.lengths import num_patches
from training.model import StepAudio2
from training.objectives import features
from training.sampling import Sampling

VOCABULARY = Vocabulary.small(40, num_codes=11)
CONFIG = ModelConfig(
    encoder=EncoderConfig(num_mels=20, num_positions=100, width=32, num_heads=4, num_layers=1),
    adaptor=AdaptorConfig(inner_width=16),
    decoder=DecoderConfig(width=48, inner_width=96, num_heads=6, num_kv_heads=2, num_layers=3, rope_theta=1e4, max_positions=128),
)
DRAWN = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)


def a_model(seed: int = 0) -> StepAudio2:
    torch.manual_seed(seed)
    model = StepAudio2(CONFIG, VOCABULARY.num_rows, VOCABULARY.text_size)
    for table in (model.model.embed_tokens, model.lm_head):
        torch.nn.init.normal_(table.weight, std=0.3)  # the small start says much the same of every id
    return model


@pytest.fixture(scope="module")
def model() -> StepAudio2:
    return a_model()


def text_prompt(*ids: int) -> Prompt:
    return Prompt(np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=bool))


def heard_prompt(num_samples: int, seed: int) -> Prompt:
    audio = np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)
    patches = num_patches(num_samples)
    ids = [VOCABULARY.audio_start, *[VOCABULARY.audio_patch] * patches, VOCABULARY.audio_end]
    return Prompt(np.array(ids), np.array([False, *[True] * patches, False]), (audio,))


SPOKEN = text_prompt(3, 4, VOCABULARY.tts_start)
PROMPTS = [text_prompt(5, 6, 7, 8, 9), heard_prompt(6000, 0), SPOKEN, text_prompt(1), heard_prompt(2500, 1)]


def grammar(may_speak: bool = True) -> Grammar:
    return Grammar(VOCABULARY, Ratio(1, 4), [VOCABULARY.end_of_text], may_speak=may_speak)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer_log_probs(model: StepAudio2, prompt: Prompt, answer: Answer, masked: slice | None = None) -> np.ndarray:
    """What the loss says of the answer behind its prompt, in one pass over the whole."""
    ids = torch.from_numpy(np.concatenate([prompt.ids, answer.ids]))
    heard = torch.from_numpy(np.pad(prompt.is_heard, (0, len(answer.ids))))
    heard_features = features(model, *hear(prompt.audio, CONFIG.encoder.num_mels))
    whole = DocumentSpans.one_a_row([len(ids)])
    hidden = model.hidden(ids[None], whole.positions(len(ids)), whole, heard[None], heard_features)[0]
    begin = len(prompt.ids)
    losses, _, _ = head_losses(hidden[begin - 1 : -1], model.lm_head.weight, ids[begin:], masked=masked)
    return -losses.detach().numpy()


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=40), DRAWN], ids=["greedy", "drawn"])
def test_log_probs_are_the_trainers(model: StepAudio2, sampling: Sampling) -> None:
    answers = generate(model, PROMPTS, grammar(), sampling, generator=seeded())
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert len(answer.ids) == len(answer.log_probs) == len(answer.drawn_log_probs)
        np.testing.assert_allclose(answer.log_probs, trainer_log_probs(model, prompt, answer), atol=1e-5)


def test_log_probs_under_a_stages_mask_are_the_trainers(model: StepAudio2) -> None:
    audio = slice(VOCABULARY.audio_base, VOCABULARY.num_rows)
    listening = [prompt for prompt in PROMPTS if prompt is not SPOKEN]
    answers = generate(model, listening, grammar(may_speak=False), DRAWN, generator=seeded(), masked=audio)
    for prompt, answer in zip(listening, answers, strict=True):
        np.testing.assert_allclose(answer.log_probs, trainer_log_probs(model, prompt, answer, audio), atol=1e-5)


def test_a_prompts_answer_does_not_depend_on_its_neighbours(model: StepAudio2) -> None:
    together = generate(model, PROMPTS, grammar(), Sampling(max_new_tokens=30))
    for prompt, answer in zip(PROMPTS, together, strict=True):
        (alone,) = generate(model, [prompt], grammar(), Sampling(max_new_tokens=30))
        assert np.array_equal(alone.ids, answer.ids)
        np.testing.assert_allclose(alone.log_probs, answer.log_probs, atol=1e-5)
    drawn = generate(model, PROMPTS, grammar(), DRAWN, generator=seeded())
    others = [text_prompt(9, 9, 9, 9, 9, 9) for _ in PROMPTS]
    for place, prompt in enumerate(PROMPTS):
        mixed = [*others[:place], prompt, *others[place + 1 :]]
        assert np.array_equal(generate(model, mixed, grammar(), DRAWN, generator=seeded())[place].ids, drawn[place].ids)


def test_the_generators_state_alone_decides(model: StepAudio2) -> None:
    torch.manual_seed(1)
    first = generate(model, PROMPTS, grammar(), DRAWN, generator=seeded(5))
    torch.manual_seed(2)
    again = generate(model, PROMPTS, grammar(), DRAWN, generator=seeded(5))
    other = generate(model, PROMPTS, grammar(), DRAWN, generator=seeded(6))
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a.ids, b.ids) for a, b in zip(first, other, strict=True))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 60), st.floats(0.2, 4.0))
def test_whatever_is_drawn_from_random_weights_deinterleaves(seed: int, limit: int, temperature: float) -> None:
    rules = grammar()
    sampling = Sampling(max_new_tokens=limit, temperature=temperature)
    answers = generate(a_model(seed), [SPOKEN, text_prompt(1, 2)], rules, sampling, generator=seeded(seed))
    for prompt, answer in zip([SPOKEN, text_prompt(1, 2)], answers, strict=True):
        whole = np.concatenate([prompt.ids, answer.ids])
        speeches = rules.speeches(whole)
        assert len(speeches) == int((whole == VOCABULARY.tts_start).sum())
        assert answer.is_finished == (VOCABULARY.end_of_text in answer.ids)
        assert answer.is_finished or len(answer.ids) == limit
        assert VOCABULARY.end_of_text not in answer.ids[:-1]


def test_greedy_answers_have_no_randomness_and_take_the_likeliest_allowed(model: StepAudio2) -> None:
    (answer,) = generate(model, [SPOKEN], grammar(), Sampling(max_new_tokens=11))
    assert not answer.drawn_log_probs.any()
    rules, state = grammar(), grammar().start(SPOKEN.ids)
    for place, token in enumerate(answer.ids.tolist()):
        ids = torch.from_numpy(np.concatenate([SPOKEN.ids, answer.ids[:place]]))
        whole = DocumentSpans.one_a_row([len(ids)])
        with torch.no_grad():
            logits = model.lm_head(model.hidden(ids[None], whole.positions(len(ids)), whole)[0, -1])
        allowed = rules.mask(rules.allowed(state, 11 - place), torch.device("cpu"))
        assert int(logits.masked_fill(~allowed, -torch.inf).argmax()) == token
        state = rules.advance(state, token)


def test_requests_that_cannot_be_met_are_refused(model: StepAudio2) -> None:
    with pytest.raises(RequestError, match=r"give a torch\.Generator"):
        generate(model, PROMPTS, grammar(), DRAWN)
    with pytest.raises(RequestError, match="prompt 0 is empty"):
        generate(model, [text_prompt()], grammar())
    with pytest.raises(RequestError, match="past the model's 128"):
        generate(model, [SPOKEN], grammar(), Sampling(max_new_tokens=126))
    begun = text_prompt(1, VOCABULARY.tts_start, 4)
    with pytest.raises(RequestError, match="takes 5 ids to close; max_new_tokens is 4"):
        generate(model, [begun], grammar(), Sampling(max_new_tokens=4))
    with pytest.raises(RequestError, match="ids of speech are masked"):
        generate(model, [SPOKEN], grammar(), Sampling(max_new_tokens=9), masked=slice(VOCABULARY.audio_base, None))
    assert generate(model, [], grammar()) == []
