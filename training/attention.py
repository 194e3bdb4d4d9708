"""Causal attention within documents, where a row of a batch holds several of them, one behind the other.

Shapes: B rows, T positions, H heads, K key-value heads, W head width, N positions that hold documents.

One interface, three ways to the same numbers (tested against each other): on the CPU each document by itself through SDPA,
documents of equal length together; on CUDA the varlen kernel of flash attention (torch 2.11 and later, bf16 and fp16) or
else a compiled FlexAttention. No position sees another document. Padding is never multiplied, but by the varlen kernel, for which it
is made of documents nobody reads: leaving it out would copy all that goes in and sort what comes back.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from manifests.errors import ContractError

PADDING = -1  # the document number of positions that hold none
NARROW = (torch.bfloat16, torch.float16)  # what flash attention takes


@dataclass(frozen=True)
class DocumentSpans:
    """Lengths of the documents of each row, from the row's start on; what is behind the last one is padding."""

    rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if any(length < 1 for row in self.rows for length in row):
            raise ContractError(f"document spans {self.rows}; a document has at least one position: leave empty ones out")

    @staticmethod
    def one_a_row(lengths: list[int]) -> DocumentSpans:
        """One document a row; a length of 0 is a row of padding."""
        return DocumentSpans(tuple((length,) if length else () for length in lengths))

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Of all documents, row by row."""
        return tuple(length for row in self.rows for length in row)

    def segments(self, width: int) -> list[tuple[int, bool]]:
        """(length, whether it is a document) of the stretches that rows of ``width`` positions are made of, in order.

        Raises ContractError when a row's documents are longer than the row.
        """
        found = []
        for row in self.rows:
            if sum(row) > width:
                raise ContractError(f"documents of lengths {row} in a row of {width} positions; pack fewer into it")
            found += [(length, True) for length in row]
            found += [(width - sum(row), False)] if sum(row) < width else []
        return found

    def positions(self, width: int) -> torch.Tensor:
        """Int64 ``[B, width]``: places within their documents, from 0; 0 in padding."""
        parts = [
            torch.arange(length) if is_document else torch.zeros(length).long() for length, is_document in self.segments(width)
        ]
        return torch.cat(parts).view(len(self.rows), width)

    def numbers(self, width: int) -> torch.Tensor:
        """Int64 ``[B, width]``: which document of all a position belongs to, from 0; PADDING where to none."""
        lengths = torch.tensor([length for length, _ in self.segments(width)])
        is_document = torch.tensor([is_document for _, is_document in self.segments(width)])
        numbers = torch.where(is_document, is_document.cumsum(0) - 1, PADDING)
        return numbers.repeat_interleave(lengths).view(len(self.rows), width)


def attend(q_BHTW: torch.Tensor, k_BKTW: torch.Tensor, v_BKTW: torch.Tensor, spans: DocumentSpans) -> torch.Tensor:
    """Each position's mix of the values before it in its own document, ``[B, H, T, W]``; zeros in padding.

    Head h reads key-value head ``h // (H / K)``. Raises ContractError when the spans do not fit ``[B, T]``.
    """
    if len(spans.rows) != len(q_BHTW):
        raise ContractError(f"spans of {len(spans.rows)} rows for a batch of {len(q_BHTW)}; give the batch's own")
    if not spans.lengths:
        # Zeros that depend on all three: ranks of FSDP wait for each other's gradients, and None is not a zero to them.
        return (q_BHTW + for_each_head(k_BKTW + v_BKTW, q_BHTW.shape[1])) * 0.0
    if q_BHTW.device.type != "cuda":
        return attend_by_document(q_BHTW, k_BKTW, v_BKTW, spans)
    if q_BHTW.dtype in NARROW and (kernel := varlen_kernel()) is not None:
        return attend_varlen(q_BHTW, k_BKTW, v_BKTW, spans, kernel)
    if all(len(row) <= 1 for row in spans.rows):
        # Prompts, and what is measured one document a row: few calls of SDPA, where Flex would be compiled for every new shape.
        return attend_by_document(q_BHTW, k_BKTW, v_BKTW, spans)
    return attend_flex(q_BHTW, k_BKTW, v_BKTW, spans, _compiled_flex())


def attend_by_document(q_BHTW: torch.Tensor, k_BKTW: torch.Tensor, v_BKTW: torch.Tensor, spans: DocumentSpans) -> torch.Tensor:
    """SDPA over the documents of each length together, so that nothing is computed over padding or between documents."""
    batch, heads, width, _ = q_BHTW.shape
    k_BHTW, v_BHTW = for_each_head(k_BKTW, heads), for_each_head(v_BKTW, heads)
    if all(row == (width,) for row in spans.rows):
        return F.scaled_dot_product_attention(q_BHTW, k_BHTW, v_BHTW, is_causal=True)
    segments = spans.segments(width)
    sizes = [length for length, _ in segments]
    # Splitting and joining all at once: slices would each have a gradient of the whole batch's size.
    streams = [flat(x_BHTW).split(sizes) for x_BHTW in (q_BHTW, k_BHTW, v_BHTW)]
    mixed = [torch.zeros_like(part) for part in streams[0]]
    for same in _places_by_length(segments):
        q, k, v = (torch.stack([stream[place] for place in same]).transpose(1, 2) for stream in streams)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        for place, part in zip(same, found.unbind(), strict=True):
            mixed[place] = part
    return unflat(torch.cat(mixed), batch)


def attend_varlen(
    q_BHTW: torch.Tensor, k_BKTW: torch.Tensor, v_BKTW: torch.Tensor, spans: DocumentSpans, kernel: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Flash attention over all documents as one ragged batch; ``kernel`` is ``varlen_kernel``'s. CUDA, bf16 or fp16."""
    batch, _, width, _ = q_BHTW.shape
    starts, is_padding_N11 = _ragged(spans, width, q_BHTW.device)
    longest = max(spans.lengths)
    mixed = kernel(flat(q_BHTW), flat(k_BKTW), flat(v_BKTW), starts, starts, longest, longest)
    return unflat(mixed if is_padding_N11 is None else mixed.masked_fill(is_padding_N11, 0.0), batch)


def attend_flex(
    q_BHTW: torch.Tensor,
    k_BKTW: torch.Tensor,
    v_BKTW: torch.Tensor,
    spans: DocumentSpans,
    kernel: Callable[..., Any] = flex_attention,
) -> torch.Tensor:
    """FlexAttention under a mask of documents: ``kernel`` is its eager or its compiled form.

    Eager it runs anywhere and writes all scores: for tests. (Compiled, torch 2.8 has no backward for the CPU.)
    """
    width = q_BHTW.shape[2]
    mask = _block_mask(spans, width, q_BHTW.device)
    mixed = kernel(q_BHTW, k_BKTW, v_BKTW, block_mask=mask, enable_gqa=q_BHTW.shape[1] != k_BKTW.shape[1])
    # Kernels do not agree on what a position has that sees nothing.
    is_padding = (spans.numbers(width) == PADDING).to(q_BHTW.device)
    return mixed.masked_fill(is_padding[:, None, :, None], 0.0)


def flat(x_BHTW: torch.Tensor) -> torch.Tensor:
    """``[B * T, H, W]``: row behind row."""
    return x_BHTW.transpose(1, 2).flatten(0, 1)


def unflat(x_NHW: torch.Tensor, batch: int) -> torch.Tensor:
    """The inverse of ``flat``: ``[B, H, T, W]``."""
    return x_NHW.unflatten(0, (batch, -1)).transpose(1, 2)


def for_each_head(x_BKTW: torch.Tensor, heads: int) -> torch.Tensor:
    """Key-value heads repeated to ``[B, H, T, W]``; SDPA's own way of grouping takes twice as long on the CPU."""
    batch, groups, width, head_width = x_BKTW.shape
    if groups == heads:
        return x_BKTW
    return x_BKTW[:, :, None].expand(batch, groups, heads // groups, width, head_width).flatten(1, 2)


@lru_cache(maxsize=2)
def varlen_kernel(*, is_causal: bool = True) -> Callable[..., torch.Tensor] | None:
    """torch's flash attention over ragged batches; None where this torch has none with a window.

    ``(q [N, H, W], k and v [N, K, W], starts of the documents and the end among N for q and for k (int32), longest document for q and
    for k) -> [N, H, W]``. A position sees what is before it in its document, or all of that.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "window_size" not in known:
        return None
    # From 2.12 on grouped heads must be asked for; before, the kernel takes them as they come.
    options: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}
    return partial(varlen_attn, window_size=(-1, 0) if is_causal else (-1, -1), **options)


def is_narrow_cuda(x: torch.Tensor) -> bool:
    """Whether products of what comes of ``x`` lie on CUDA in a type that flash attention takes."""
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return x.is_cuda and dtype in NARROW


def _places_by_length(segments: list[tuple[int, bool]]) -> list[list[int]]:
    """Places of the documents among the segments, those of equal length together."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, (length, is_document) in enumerate(segments):
        if is_document:
            places[length].append(place)
    return list(places.values())


@lru_cache(maxsize=4)
def _ragged(spans: DocumentSpans, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(int32 starts of what the flat positions are made of, and the end; bool ``[N, 1, 1]`` of those that are padding, None without any).

    Padding is cut at the longest document's length, which thus stays the longest.
    """
    longest, lengths = max(spans.lengths), [0]
    for length, is_document in spans.segments(width):
        lengths += [length] if is_document else [min(longest, length - start) for start in range(0, length, longest)]
    starts = torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    if sum(spans.lengths) == len(spans.rows) * width:
        return starts, None
    return starts, (spans.numbers(width) == PADDING).view(-1, 1, 1).to(device)


@lru_cache(maxsize=4)
def _block_mask(spans: DocumentSpans, width: int, device: torch.device) -> Any:
    numbers_BT = spans.numbers(width).to(device)

    def sees(row: Any, head: Any, query: Any, key: Any) -> Any:
        return (query >= key) & (numbers_BT[row, query] == numbers_BT[row, key]) & (numbers_BT[row, query] != PADDING)

    return create_block_mask(sees, len(spans.rows), None, width, width, device=device.type)


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)
