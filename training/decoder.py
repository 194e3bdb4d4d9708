"""The decoder: Qwen2 under its own weight names, without a cache (training only sees whole sequences).

Shapes: B batch, T positions, D width, H heads, K key-value heads, W head width, V vocabulary rows.
Reference, section 1.3: biases on q, k and v, none on o; rotary positions in half-split form; RMSNorm; SwiGLU;
an output head that is not tied to the embedding. Parity with transformers is tested.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from training.config import DecoderConfig


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
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, kv_width = config.width, config.num_kv_heads * config.head_width
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BTD: torch.Tensor, cos_TW: torch.Tensor, sin_TW: torch.Tensor) -> torch.Tensor:
        batch, positions, width = x_BTD.shape

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(batch, positions, -1, self.config.head_width).transpose(1, 2)

        q_BHTW = rotate(heads(self.q_proj(x_BTD)), cos_TW, sin_TW)
        k_BKTW = rotate(heads(self.k_proj(x_BTD)), cos_TW, sin_TW)
        group = self.config.num_heads // self.config.num_kv_heads
        k_BHTW = k_BKTW.repeat_interleave(group, dim=1)
        v_BHTW = heads(self.v_proj(x_BTD)).repeat_interleave(group, dim=1)
        mixed = F.scaled_dot_product_attention(q_BHTW, k_BHTW, v_BHTW, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, positions, width))


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

    def forward(self, x_BTD: torch.Tensor, cos_TW: torch.Tensor, sin_TW: torch.Tensor) -> torch.Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TW, sin_TW)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Embeddings in, normed hidden states out; the embedding table lives here, as in the published weights."""

    def __init__(self, config: DecoderConfig, num_rows: int) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(num_rows, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Hidden states ``[B, T, D]``. Position t sees positions up to t only, so padding on the right needs no mask."""
        cos_TW, sin_TW = rotations(x_BTD.shape[1], self.config, x_BTD.device)
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos_TW, sin_TW)
        return self.norm(x_BTD)


def rotations(positions: int, config: DecoderConfig, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines ``[T, W]`` of the rotary angles, each half of W the same (RoFormer, arXiv 2104.09864)."""
    exponents = torch.arange(0, config.head_width, 2, device=device, dtype=torch.float32) / config.head_width
    angles = torch.arange(positions, device=device)[:, None] * (1.0 / config.rope_theta**exponents)[None, :]
    angles_TW = torch.cat([angles, angles], dim=-1)
    return angles_TW.cos(), angles_TW.sin()


def rotate(x: torch.Tensor, cos_TW: torch.Tensor, sin_TW: torch.Tensor) -> torch.Tensor:
    """Heads ``[..., T, W]`` turned by their positions' angles; the pairs are (i, i + W/2)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos_TW + torch.cat([-second, first], dim=-1) * sin_TW
