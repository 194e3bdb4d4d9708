"""What the decoder gives besides its last states, and ways of computing that change none of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from manifests.errors import ContractError
from training.attention import DocumentSpans
from training.cache import KeyValueCache
from training.config import DecoderConfig
from training.decoder import Decoder

CONFIG = DecoderConfig(width=48, inner_width=96, num_heads=6, num_kv_heads=2, num_layers=3, rope_theta=1e4, max_positions=128)
WIDTH = 24
SPANS = DocumentSpans(((5, 19), (12, 7)))


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG, num_rows=101)


@pytest.fixture
def embedded() -> torch.Tensor:
    """``[2, WIDTH, D]``, with a gradient as embeddings have one."""
    return torch.randn(2, WIDTH, CONFIG.width, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradients(decoder: Decoder, embedded: torch.Tensor, spans: DocumentSpans = SPANS) -> dict[str, torch.Tensor]:
    decoder.zero_grad()
    # A direction: the squares of normed states sum to the same whatever the weights are.
    direction = torch.randn(2, WIDTH, CONFIG.width, generator=torch.Generator().manual_seed(2))
    (decoder(embedded, spans.positions(WIDTH), spans) * direction).sum().backward()
    return {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}


def test_states_of_layers_are_what_the_next_block_reads(decoder: Decoder, embedded: torch.Tensor) -> None:
    positions = SPANS.positions(WIDTH)
    start, first, last = decoder.states(embedded, positions, SPANS, (0, 1, 3))
    assert torch.equal(start, embedded)
    assert torch.equal(last, decoder(embedded, positions, SPANS))
    shallow = Decoder(replace(CONFIG, num_layers=1), num_rows=101)
    shallow.load_state_dict(decoder.state_dict(), strict=False)
    assert torch.equal(decoder.norm(first), shallow(embedded, positions, SPANS))


@pytest.mark.parametrize("recomputes", [False, True])
def test_states_at_places_are_those_of_all_positions(decoder: Decoder, embedded: torch.Tensor, recomputes: bool) -> None:
    decoder.recomputes = recomputes
    positions, places = SPANS.positions(WIDTH), torch.tensor([2, 7, 23, 24, 41])
    direction = torch.randn(len(places), CONFIG.width, generator=torch.Generator().manual_seed(2))
    states = [
        decoder(embedded, positions, SPANS).flatten(0, 1)[places],
        decoder(embedded, positions, SPANS, places_N=places),
    ]
    torch.testing.assert_close(*states)
    of = [embedded, *decoder.layers.parameters()]
    for all_positions, at_places in zip(*(torch.autograd.grad((state * direction).sum(), of) for state in states), strict=True):
        torch.testing.assert_close(all_positions, at_places)


def test_no_places_still_reach_every_weight(decoder: Decoder, embedded: torch.Tensor) -> None:
    """A rank whose sequences have no target has zeros for gradients, not none: the others wait for them."""
    decoder(embedded, SPANS.positions(WIDTH), SPANS, places_N=torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in decoder.layers.parameters())


def test_recomputing_changes_no_bit_and_keeps_no_activations_of_blocks(decoder: Decoder, embedded: torch.Tensor) -> None:
    def kept() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            decoder(embedded, SPANS.positions(WIDTH), SPANS)
        return sum(sizes)

    expected, before = gradients(decoder, embedded), kept()
    decoder.recomputes = True
    found, after = gradients(decoder, embedded), kept()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert after < before / 4


def test_compiled_halves_are_compiled_once_for_all_layers_and_spans(decoder: Decoder, embedded: torch.Tensor) -> None:
    """Spans differ with every batch; what is compiled must not."""
    batches = [SPANS, DocumentSpans(((24,), (1, 2, 3))), DocumentSpans(((), (6, 6, 6, 6))), DocumentSpans.one_a_row([24, 24])]
    expected = [gradients(decoder, embedded, spans) for spans in batches]
    counter = CompileCounter()
    for layer in decoder.layers:
        layer.compile_halves(backend=counter, fullgraph=True)
    for spans, grads in zip(batches, expected, strict=True):
        for name, found in gradients(decoder, embedded, spans).items():
            torch.testing.assert_close(found, grads[name], atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 2


@pytest.mark.parametrize("sizes", [(7, 1, 1, 3), (1, 1, 1), (2, 9)])
def test_a_cached_pass_is_the_whole_one_piece_by_piece(decoder: Decoder, embedded: torch.Tensor, sizes: tuple[int, ...]) -> None:
    """The second row is two shorter than the first, from the first piece on where that has so many."""
    lead = min(2, sizes[0] - 1)
    total = sum(sizes)
    whole = DocumentSpans.one_a_row([total, total - lead])
    with torch.no_grad():
        expected = decoder(embedded[:, :total], whole.positions(total), whole)
        cache = KeyValueCache(CONFIG, 2, total, torch.device("cpu"), torch.float32)
        found: list[list[torch.Tensor]] = [[], []]
        for size in sizes:
            new = [size, size - lead if not any(cache.lengths) else size]
            at = torch.tensor(cache.lengths)
            spans = DocumentSpans.one_a_row(new)
            piece = torch.stack([embedded[row, at[row] : at[row] + size] for row in range(2)])
            hidden = decoder(piece, at[:, None] + torch.arange(size), spans, cache)
            for row in range(2):
                found[row].append(hidden[row, : new[row]])
    for row in range(2):
        torch.testing.assert_close(torch.cat(found[row]), expected[row, : total - lead * row], atol=1e-5, rtol=1e-5)


def test_a_cached_step_works_on_new_positions_only(decoder: Decoder, embedded: torch.Tensor) -> None:
    cache = KeyValueCache(CONFIG, 2, WIDTH, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        whole = DocumentSpans.one_a_row([WIDTH - 1, WIDTH - 1])
        decoder(embedded[:, 1:], whole.positions(WIDTH - 1), whole, cache)
        with FlopCounterMode(display=False) as counter:
            last = DocumentSpans.one_a_row([1, 1])
            decoder(embedded[:, :1].detach(), torch.full((2, 1), WIDTH - 1), last, cache)
    matrices = sum(p.numel() for name, p in decoder.layers.named_parameters() if p.ndim == 2)
    assert counter.get_total_flops() >= 2 * 2 * matrices
    assert counter.get_total_flops() < 1.2 * 2 * 2 * matrices


def test_a_cache_keeps_rows_and_refuses_more_than_it_has_room_for(decoder: Decoder, embedded: torch.Tensor) -> None:
    cache = KeyValueCache(CONFIG, 2, 8, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        first = DocumentSpans.one_a_row([3, 6])
        decoder(embedded[:, :6], first.positions(6), first, cache)
        with pytest.raises(ContractError, match="room for 8 positions a row, 9"):
            cache.admit(DocumentSpans.one_a_row([0, 3]), 3)
        with pytest.raises(ContractError, match="one document a row"):
            cache.admit(DocumentSpans(((1, 1), (1,))), 2)
        cache.keep([1])
        assert cache.lengths == [6]
        one = DocumentSpans.one_a_row([1])
        found = decoder(embedded[1:, 6:7], torch.tensor([[6]]), one, cache)
        whole = DocumentSpans.one_a_row([7])
        expected = decoder(embedded[1:, :7], whole.positions(7), whole)[:, 6:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_bfloat16(decoder: Decoder, embedded: torch.Tensor) -> None:
    expected = decoder(embedded, SPANS.positions(WIDTH), SPANS)
    found = decoder.bfloat16()(embedded.bfloat16(), SPANS.positions(WIDTH), SPANS)
    assert found.dtype == torch.bfloat16
    held = SPANS.numbers(WIDTH) >= 0
    assert (found.float() - expected)[held].abs().mean() < 0.02 * expected[held].abs().mean()
