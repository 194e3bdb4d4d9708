"""Answers to prompts, many at a time, one id after another over a cache of keys and values.

Shapes: B prompts that are not finished, T positions, V vocabulary rows, D decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from manifests.errors import RequestError
from training.attention import DocumentSpans
from training.batches import hear, on_device
from training.cache import KeyValueCache
from training.grammar import SPEECH, Grammar, State
from training.model import StepAudio2
from training.objectives import features
from training.sampling import Sampling, draw

if TYPE_CHECKING:
    from training.examples import Example


@dataclass(frozen=True)
class Prompt:
    """What an answer goes on from."""

    ids: np.ndarray  # int64 [T]
    is_heard: np.ndarray  # bool [T]: an adaptor feature stands here instead of the id's embedding
    audio: tuple[np.ndarray, ...] = ()  # float32 [S] at 16 kHz each, in order

    @staticmethod
    def of_example(example: Example) -> Prompt:
        """What stands before the first position that has a loss, with the audio that is heard there."""
        end = int(np.flatnonzero(example.weights > 0)[0])
        heard = example.is_heard[:end]
        num_pieces = int((heard & ~np.append(False, heard[:-1])).sum())  # wrappers stand between their patches
        return Prompt(example.ids[:end], heard, example.audio[:num_pieces])


@dataclass(frozen=True)
class Answer:
    """What was generated behind a prompt; the stop is the last id of a finished one."""

    ids: np.ndarray  # int64 [N]
    log_probs: np.ndarray  # float32 [N]: under the model alone, as the trainer computes them
    drawn_log_probs: np.ndarray  # float32 [N]: under what it was drawn from (grammar, penalty, temperature, top-p); greedy: 0
    is_finished: bool  # ended with a stop; else it was cut


@dataclass
class _Row:
    """One prompt under way."""

    number: int
    length: int  # positions so far
    state: State
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)
    is_finished: bool = False

    def answer(self) -> Answer:
        log_probs, drawn = (np.array(values, dtype=np.float32) for values in (self.log_probs, self.drawn))
        return Answer(np.array(self.ids, dtype=np.int64), log_probs, drawn, self.is_finished)


@torch.no_grad()
def generate(
    model: StepAudio2,
    prompts: Sequence[Prompt],
    grammar: Grammar,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    *,
    generator: torch.Generator | None = None,
    masked: slice | torch.Tensor | None = None,
) -> list[Answer]:
    """An answer to each prompt, in order.

    ``generator``: of the CPU; one number a prompt and id is taken from it, so an answer depends on the generator's state, on
    how many prompts there are and on its own place, not on what the others say. ``masked``: ids that the stage leaves out of
    the softmax, as ``head_losses`` takes them. Raises RequestError for a prompt that is empty, that does not leave room for
    the answer, or within speech that cannot end in ``max_new_tokens``; and when ids are to be drawn without a generator.
    """
    if not sampling.is_greedy and generator is None:
        raise RequestError(
            f"temperature {sampling.temperature} draws at random; give a torch.Generator, or 0 for the likeliest id"
        )
    rows = [_Row(number, len(prompt.ids), grammar.start(prompt.ids)) for number, prompt in enumerate(prompts)]
    _refuse_what_cannot_end(model, rows, grammar, sampling)
    if not rows:
        return []
    left_V = _left_out(model, grammar, rows, masked)
    cache, last_BD = _read(model, prompts, sampling)
    seen = _seen(prompts, model.lm_head.weight)
    active = rows
    for step in range(sampling.max_new_tokens):
        logits_BV = model.lm_head(last_BD).float().masked_fill(left_V, -torch.inf)
        uniform = None if sampling.is_greedy else torch.rand(len(rows), generator=generator)
        _extend(active, logits_BV, grammar, sampling, seen, uniform, sampling.max_new_tokens - step)
        going = [place for place, row in enumerate(active) if not row.is_finished]
        if not going or step + 1 == sampling.max_new_tokens:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            cache.keep(going)
        last_BD = _step(model, active, cache)
    return [row.answer() for row in rows]


def _refuse_what_cannot_end(model: StepAudio2, rows: list[_Row], grammar: Grammar, sampling: Sampling) -> None:
    longest = model.config.decoder.max_positions
    for row in rows:
        if row.length == 0:
            raise RequestError(f"prompt {row.number} is empty; an answer goes on from at least one id")
        if row.length + sampling.max_new_tokens > longest:
            raise RequestError(
                f"prompt {row.number} has {row.length} positions; with max_new_tokens {sampling.max_new_tokens} that is past the model's "
                f"{longest}: shorten either"
            )
        if (fewest := grammar.fewest(row.state)) > sampling.max_new_tokens:
            raise RequestError(
                f"prompt {row.number} ends within speech that takes {fewest} ids to close; max_new_tokens is {sampling.max_new_tokens}"
            )


def _left_out(model: StepAudio2, grammar: Grammar, rows: list[_Row], masked: slice | torch.Tensor | None) -> torch.Tensor:
    """Bool ``[V]`` of the masked ids. Raises RequestError where answers may speak and ids of speech are among them."""
    device = model.lm_head.weight.device
    left_V = torch.zeros(len(model.lm_head.weight), dtype=torch.bool, device=device)
    if masked is not None:
        left_V[masked] = True
    speaks = grammar.may_speak or any(row.state is not None for row in rows)
    if speaks and bool((left_V & grammar.mask(SPEECH, device)).any()):
        raise RequestError("answers are to speak and ids of speech are masked in this stage; ask for text, or take a later stage")
    return left_V


def _seen(prompts: Sequence[Prompt], head_VD: torch.Tensor) -> torch.Tensor:
    """Bool ``[prompts, V]``: the ids of each."""
    seen = torch.zeros(len(prompts), len(head_VD), dtype=torch.bool)
    for number, prompt in enumerate(prompts):
        seen[number, torch.from_numpy(prompt.ids)] = True
    return seen.to(head_VD.device)


def _read(model: StepAudio2, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[KeyValueCache, torch.Tensor]:
    """The prompts through the model: their cache, and the hidden state ``[B, D]`` of each one's last position."""
    weight = model.lm_head.weight
    lengths = [len(prompt.ids) for prompt in prompts]
    width = max(lengths)
    spans = DocumentSpans.one_a_row(lengths)
    ids_BT = torch.stack([torch.from_numpy(np.pad(prompt.ids, (0, width - len(prompt.ids)))) for prompt in prompts])
    heard_BT = torch.stack([torch.from_numpy(np.pad(prompt.is_heard, (0, width - len(prompt.ids)))) for prompt in prompts])
    pieces = [piece for prompt in prompts for piece in prompt.audio]
    heard, places_P = hear(pieces, model.config.encoder.num_mels)
    features_PD = features(model, [on_device(batch, weight.device) for batch in heard], places_P.to(weight.device))
    cache = KeyValueCache(model.config.decoder, len(prompts), width + sampling.max_new_tokens, weight.device, weight.dtype)
    hidden_BTD = model.hidden(
        ids_BT.to(weight.device),
        spans.positions(width).to(weight.device),
        spans,
        heard_BT.to(weight.device),
        features_PD,
        cache,
    )
    return cache, hidden_BTD[torch.arange(len(prompts)), torch.tensor(lengths) - 1]


def _step(model: StepAudio2, active: list[_Row], cache: KeyValueCache) -> torch.Tensor:
    """The last id of each through the model: hidden states ``[B, D]``."""
    device = model.lm_head.weight.device
    ids_BT = torch.tensor([[row.ids[-1]] for row in active], device=device)
    positions_BT = torch.tensor([[row.length - 1] for row in active], device=device)
    spans = DocumentSpans.one_a_row([1] * len(active))
    return model.hidden(ids_BT, positions_BT, spans, cache=cache)[:, 0]


def _extend(
    active: list[_Row],
    logits_BV: torch.Tensor,
    grammar: Grammar,
    sampling: Sampling,
    seen: torch.Tensor,
    uniform: torch.Tensor | None,
    remaining: int,
) -> None:
    """One id more for every row; those at a stop are finished."""
    device = logits_BV.device
    numbers = torch.tensor([row.number for row in active])
    allowed_BV = torch.stack([grammar.mask(grammar.allowed(row.state, remaining), device) for row in active])
    uniform_B = None if uniform is None else uniform[numbers].to(device)
    ids_B, drawn_B = draw(logits_BV, allowed_BV, seen[numbers.to(device)], sampling, uniform_B)
    seen[numbers.to(device), ids_B] = True
    found_B = logits_BV.log_softmax(-1).gather(-1, ids_B[:, None])[:, 0]
    for row, token, log_prob, drawn in zip(active, ids_B.tolist(), found_B.tolist(), drawn_B.tolist(), strict=True):
        row.ids.append(token)
        row.log_probs.append(log_prob)
        row.drawn.append(drawn)
        row.length += 1
        row.is_finished = token in grammar.stop_ids
        row.state = grammar.advance(row.state, token)
