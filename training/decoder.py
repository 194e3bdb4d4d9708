"""The decoder: Qwen2 under its own weight names, over rows of documents.

Shapes: B batch, T positions, N chosen ones among B x T, D width, H heads, K key-value heads, W head width, V vocabulary rows.
Reference, section 1.3: biases on q, k and v, none on o; rotary positions in half-split form; RMSNorm; SwiGLU;
an output head that is not tied to the embedding. Parity with transformers is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from training.attention import DocumentSpans, attend, flat, unflat
from training.cache import KeyValueCache
from training.config import DecoderConfig

# (q [B, H, T, W], k and v [B, K, T, W]) -> [B, H, T, W]: ``attend`` over spans, or a cache's step.
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x32 = x.float()
        return self.weight * (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class DecoderAttention(nn.Module):
    """The projections of grouped-query attention; the mixing between them is the caller's."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.width, config.num_kv_heads * config.head_width
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)

    def heads(
        self, x_BTD: torch.Tensor, cos_B1TW: torch.Tensor, sin_B1TW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries ``[B, H, T, W]``, keys and values ``[B, K, T, W]``; the first two turned to their positions."""
        q, k, v = (
            project(x_BTD).unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return rotate(q, cos_B1TW, sin_B1TW), rotate(k, cos_B1TW, sin_B1TW), v


class GatedMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.down_proj = nn.Linear(config.inner_width, config.width, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(config)
        self.mlp = GatedMLP(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos_B1TW: torch.Tensor,
        sin_B1TW: torch.Tensor,
        mix: Mix,
        places_N: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``[B, T, D]``; with flat places, all behind the mixing is worked out there alone: ``[1, N, D]``."""
        mixed_BHTW = mix(*self.enter(x_BTD, cos_B1TW, sin_B1TW))
        if places_N is None:
            return self.leave(x_BTD, mixed_BHTW)
        x_1ND = x_BTD.flatten(0, 1).index_select(0, places_N)[None]
        return self.leave(x_1ND, unflat(flat(mixed_BHTW).index_select(0, places_N), 1))

    def enter(
        self, x_BTD: torch.Tensor, cos_B1TW: torch.Tensor, sin_B1TW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All before the mixing: queries, keys and values."""
        return self.self_attn.heads(self.input_layernorm(x_BTD), cos_B1TW, sin_B1TW)

    def leave(self, x_BTD: torch.Tensor, mixed_BHTW: torch.Tensor) -> torch.Tensor:
        """All after the mixing: the block's output ``[B, T, D]``."""
        x_BTD = x_BTD + self.self_attn.o_proj(mixed_BHTW.transpose(1, 2).flatten(2))
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))

    def compile_halves(self, **options: Any) -> None:
        """Compile what lies before and behind the mixing, which differs with every batch's spans and stays as it is."""
        self.enter = torch.compile(self.enter, **options)  # type: ignore[method-assign]
        self.leave = torch.compile(self.leave, **options)  # type: ignore[method-assign]


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out; the embedding table lives here, as in the published weights."""

    def __init__(self, config: DecoderConfig, num_rows: int) -> None:
        super().__init__()
        self.config = config
        self.recomputes = False  # activations of a block are computed again in the backward pass instead of kept
        self.embed_tokens = nn.Embedding(num_rows, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def compile_blocks(self) -> None:
        """Compile every block, but for the mixing in it."""
        for module in self.modules():
            if isinstance(module, DecoderLayer):
                module.compile_halves()

    def forward(
        self,
        x_BTD: torch.Tensor,
        positions_BT: torch.Tensor,
        spans: DocumentSpans,
        cache: KeyValueCache | None = None,
        places_N: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states ``[B, T, D]``, normed; those in padding mean nothing. At ``places_N`` of the flattened rows only: ``[N, D]``.

        ``positions_BT``: places within the documents, from 0. With a cache, ``spans`` are the new positions of its rows, and
        each sees what its row holds already. Raises ContractError when spans fit neither batch nor cache.
        """
        (hidden_BTD,) = self.states(x_BTD, positions_BT, spans, (self.config.num_layers,), cache, places_N)
        return hidden_BTD if places_N is None else hidden_BTD[0]

    def states(
        self,
        x_BTD: torch.Tensor,
        positions_BT: torch.Tensor,
        spans: DocumentSpans,
        layers: Sequence[int],
        cache: KeyValueCache | None = None,
        places_N: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Hidden states ``[B, T, D]`` behind so many blocks each: 0 is what went in, and only the last is normed.

        With flat places the last is ``[1, N, D]``: behind the last mixing no position looks at another, and most of what a step
        reads (prompts, audio) has no loss.
        """
        found = {}
        cos_B1TW, sin_B1TW = rotations(positions_BT, self.config)
        step = None if cache is None else cache.admit(spans, x_BTD.shape[1])
        for number, layer in enumerate(self.layers):
            if number in layers:
                found[number] = x_BTD
            mix = partial(attend, spans=spans) if step is None else partial(step.attend, number)
            wanted_N = places_N if number == self.config.num_layers - 1 else None
            if self.recomputes and torch.is_grad_enabled():
                # Nothing in a block is drawn, so no generator's state has to be kept for it.
                x_BTD = checkpoint(layer, x_BTD, cos_B1TW, sin_B1TW, mix, wanted_N, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BTD = layer(x_BTD, cos_B1TW, sin_B1TW, mix, wanted_N)
        found[self.config.num_layers] = self.norm(x_BTD)
        return tuple(found[layer] for layer in layers)


def rotations(positions_BT: torch.Tensor, config: DecoderConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines ``[B, 1, T, W]``, float32, of the rotary angles; each half of W the same (RoFormer, arXiv 2104.09864)."""
    exponents = torch.arange(0, config.head_width, 2, device=positions_BT.device, dtype=torch.float32) / config.head_width
    angles = positions_BT[:, None, :, None] * (1.0 / config.rope_theta**exponents)
    angles_B1TW = torch.cat([angles, angles], dim=-1)
    return angles_B1TW.cos(), angles_B1TW.sin()


def rotate(x_BHTW: torch.Tensor, cos_B1TW: torch.Tensor, sin_B1TW: torch.Tensor) -> torch.Tensor:
    """Heads turned by their positions' angles, computed in float32; the pairs are (i, i + W/2)."""
    first, second = x_BHTW.chunk(2, dim=-1)
    return (x_BHTW * cos_B1TW + torch.cat([-second, first], dim=-1) * sin_B1TW).to(x_BHTW.dtype)
