"""Documents in one row do not see each other, in any backend, and padding is never computed over."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from manifests.errors import ContractError
from training.attention import DocumentSpans, attend, attend_by_document, attend_flex, attend_varlen
from training.config import DecoderConfig
from training.decoder import Decoder

WIDTH = 24
CONFIG = DecoderConfig(width=48, inner_width=96, num_heads=6, num_kv_heads=2, num_layers=3, rope_theta=1e4, max_positions=128)
ROWS = 101
PACKED = DocumentSpans(((5, 1, 9), (12, 12), (), (5, 9)))

spans_of_two_rows = (
    st.lists(st.lists(st.integers(1, 9), max_size=6).filter(lambda row: sum(row) <= WIDTH).map(tuple), min_size=2, max_size=2)
    .filter(any)
    .map(lambda rows: DocumentSpans(tuple(rows)))
)


def heads(seed: int, batch: int, kv_heads: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (6, kv_heads, kv_heads)
    q, k, v = (torch.randn(batch, count, WIDTH, 8, generator=draw).requires_grad_() for count in shapes)
    return q, k, v


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: DocumentSpans) -> torch.Tensor:
    """The formula, in float64, one document and head at a time."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for row, lengths in enumerate(spans.rows):
        start = 0
        for length in lengths:
            here = slice(start, start + length)
            for head in range(q.shape[1]):
                group = head // (q.shape[1] // k.shape[1])
                scores = q[row, head, here].double() @ k[row, group, here].double().T / q.shape[-1] ** 0.5
                hidden = torch.ones(length, length).triu(1).bool()
                out[row, head, here] = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v[row, group, here].double()
            start += length
    return out


def plain_ragged(
    q_NHW: torch.Tensor, k_NKW: torch.Tensor, v_NKW: torch.Tensor, starts: torch.Tensor, same: torch.Tensor, longest: int, _: int
) -> torch.Tensor:
    """What the varlen kernel is said to compute: causal attention within ragged documents, which are all that it is given."""
    assert torch.equal(starts, same)
    lengths = starts.diff()
    assert starts.dtype is torch.int32
    assert (int(starts[0]), int(starts[-1])) == (0, len(q_NHW))
    assert int(lengths.min()) > 0
    assert int(lengths.max()) == longest
    parts = zip(*(x.split(lengths.tolist()) for x in (q_NHW, k_NKW, v_NKW)), strict=True)
    return torch.cat(
        [
            F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part), is_causal=True, enable_gqa=True).transpose(0, 1)
            for part in parts
        ]
    )


def attend_ragged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spans: DocumentSpans) -> torch.Tensor:
    return attend_varlen(q, k, v, spans, plain_ragged)


@settings(deadline=None, max_examples=40)
@given(spans_of_two_rows, st.integers(0, 99))
def test_backends_agree_with_the_formula_in_values_and_gradients(spans: DocumentSpans, seed: int) -> None:
    weights = torch.randn(2, 6, WIDTH, 8, generator=torch.Generator().manual_seed(seed + 1))
    found = []
    for backend in (plain, attend_by_document, attend_flex, attend_ragged):
        inputs = heads(seed, 2)
        mixed = backend(*inputs, spans)
        (mixed * weights).sum().backward()
        found.append([mixed.detach().float(), *(x.grad for x in inputs)])
    for other in found[1:]:
        for value, expected in zip(other, found[0], strict=True):
            torch.testing.assert_close(value, expected, atol=2e-6, rtol=1e-5)


def test_rows_of_one_whole_document_are_plain_causal_attention() -> None:
    q, k, v = heads(0, 3, kv_heads=6)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(attend(q, k, v, DocumentSpans.one_a_row([WIDTH] * 3)), expected)


def test_padding_is_zero_and_costs_nothing() -> None:
    q, k, v = heads(0, 4)

    def work(spans: DocumentSpans) -> int:
        # The formula's own kernel: the counter does not see into the CPU's fused one.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            mixed = attend(q, k, v, spans)
        assert not mixed.transpose(1, 2)[spans.numbers(WIDTH) < 0].any()
        return counter.get_total_flops()

    assert work(DocumentSpans(((), (), (), ()))) == 0
    lengths = [5, 9, 3]
    expected = sum(4 * 6 * 8 * length * length for length in lengths)  # two products over the square of the length
    assert work(DocumentSpans(((5,), (), (9, 3), ()))) == expected


def test_a_batch_of_padding_has_gradients_of_zero() -> None:
    inputs = heads(0, 2)
    attend(*inputs, DocumentSpans(((), ()))).sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in inputs)


def test_spans_that_do_not_fit_are_refused() -> None:
    q, k, v = heads(0, 2)
    with pytest.raises(ContractError, match="spans of 1 rows for a batch of 2"):
        attend(q, k, v, DocumentSpans(((3,),)))
    with pytest.raises(ContractError, match="row of 24 positions"):
        attend(q, k, v, DocumentSpans(((20, 5), (3,))))
    with pytest.raises(ContractError, match="at least one position"):
        DocumentSpans(((3, 0),))


def test_positions_and_numbers_restart_with_every_document() -> None:
    spans = DocumentSpans(((2, 3), (), (4,)))
    assert spans.positions(6).tolist() == [[0, 1, 0, 1, 2, 0], [0] * 6, [0, 1, 2, 3, 0, 0]]
    assert spans.numbers(6).tolist() == [[0, 0, 1, 1, 1, -1], [-1] * 6, [2, 2, 2, 2, -1, -1]]
    assert DocumentSpans.one_a_row([2, 0, 1]).rows == ((2,), (), (1,))


def a_decoder() -> Decoder:
    torch.manual_seed(3)
    decoder = Decoder(CONFIG, ROWS)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


def losses(decoder: Decoder, ids_BT: torch.Tensor, spans: DocumentSpans) -> torch.Tensor:
    """Cross-entropy of each next token within its document, document by document ``[N]``."""
    width = ids_BT.shape[1]
    hidden_BTD = decoder(decoder.embed_tokens(ids_BT), spans.positions(width), spans)
    logits_BTV = hidden_BTD @ decoder.embed_tokens.weight.T
    numbers_BT = spans.numbers(width)
    same_BT = (numbers_BT[:, 1:] == numbers_BT[:, :-1]) & (numbers_BT[:, 1:] >= 0)
    return F.cross_entropy(logits_BTV[:, :-1][same_BT], ids_BT[:, 1:][same_BT], reduction="none")


def test_packed_documents_have_the_losses_and_gradients_of_each_alone() -> None:
    ids_BT = torch.randint(ROWS, (4, WIDTH), generator=torch.Generator().manual_seed(0))
    packed = a_decoder()
    packed_losses = losses(packed, ids_BT, PACKED)
    packed_losses.sum().backward()
    alone = a_decoder()
    alone_losses = []
    for row, lengths in zip(ids_BT, PACKED.rows, strict=True):
        for document in row[: sum(lengths)].split(list(lengths)):
            alone_losses.append(losses(alone, document[None], DocumentSpans(((len(document),),))))
            alone_losses[-1].sum().backward()
    torch.testing.assert_close(packed_losses, torch.cat(alone_losses), atol=1e-5, rtol=1e-5)
    for name, parameter in packed.named_parameters():
        expected = dict(alone.named_parameters())[name].grad
        assert (parameter.grad - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def test_another_document_in_the_row_changes_no_bit() -> None:
    decoder = a_decoder()
    ids_BT = torch.randint(ROWS, (4, WIDTH), generator=torch.Generator().manual_seed(0))
    numbers_BT = PACKED.numbers(WIDTH)
    with torch.no_grad():
        before = decoder(decoder.embed_tokens(ids_BT), PACKED.positions(WIDTH), PACKED)
        for changed in range(len(PACKED.lengths)):
            other = torch.where(numbers_BT == changed, (ids_BT + 1) % ROWS, ids_BT)
            after = decoder(decoder.embed_tokens(other), PACKED.positions(WIDTH), PACKED)
            rest = (numbers_BT != changed) & (numbers_BT >= 0)
            assert torch.equal(before[rest], after[rest])
            assert not torch.equal(before[numbers_BT == changed], after[numbers_BT == changed])


def test_padding_holds_what_it_likes() -> None:
    decoder = a_decoder()
    ids_BT = torch.randint(ROWS, (4, WIDTH), generator=torch.Generator().manual_seed(0))
    other = torch.where(PACKED.numbers(WIDTH) < 0, 7, ids_BT)
    with torch.no_grad():
        before, after = (decoder(decoder.embed_tokens(ids), PACKED.positions(WIDTH), PACKED) for ids in (ids_BT, other))
    held = PACKED.numbers(WIDTH) >= 0
    assert torch.equal(before[held], after[held])
