"""The audio encoder: Whisper's blocks under the published names, pooled to 25 frames a second.

Shapes: A audio pieces, C mel bands, M mel frames, P positions at 50 Hz, F frames at 25 Hz, D width, H heads.
Reference, section 1.4. Queries and keys each carry d^-0.25 there; scaling the product by d^-0.5 is the same number.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from manifests.errors import ContractError
from training.config import EncoderConfig

LONGEST_PERIOD = 10_000.0


class EncoderAttention(nn.Module):
    """Bidirectional attention over valid positions; the key projection has no bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_APD: torch.Tensor, valid_AP: torch.Tensor) -> torch.Tensor:
        num_pieces, positions, width = x_APD.shape

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(num_pieces, positions, self.num_heads, -1).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.query(x_APD)), heads(self.key(x_APD)), heads(self.value(x_APD)), attn_mask=valid_AP[:, None, None, :]
        )
        return self.out(mixed.transpose(1, 2).reshape(num_pieces, positions, width))


class EncoderBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = EncoderAttention(width, num_heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x_APD: torch.Tensor, valid_AP: torch.Tensor) -> torch.Tensor:
        x_APD = x_APD + self.attn(self.attn_ln(x_APD), valid_AP)
        return x_APD + self.mlp(self.mlp_ln(x_APD))


class AudioEncoder(nn.Module):
    """Mels in, frames at 25 Hz out."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv1d(config.num_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = nn.Embedding(config.num_positions, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, config.num_heads) for _ in range(config.num_layers))
        self.avg_pooler = nn.AvgPool1d(2, stride=2)
        self.after_norm = nn.LayerNorm(width)
        with torch.no_grad():
            self.positional_embedding.weight.copy_(sinusoids(config.num_positions, width))
        self.positional_embedding.weight.requires_grad_(False)  # a constant in the published model too

    def forward(self, mels_ACM: torch.Tensor, num_valid_A: torch.Tensor) -> torch.Tensor:
        """Frames ``[A, F, D]`` of zero-padded mels, of which the first ``num_valid_A`` frames (M - 2) count.

        The first ``num_encoder_frames(num_valid)`` frames of a piece are its own and do not depend on the padding;
        those behind them are zero. Raises ContractError past ``num_positions``. The published class does not zero them: where a piece has an odd number of frames,
        its adaptor's last window reads one more, which there depends on the padding (docs/decisions/0004).
        """
        x_ADP = F.gelu(self.conv1(mels_ACM.to(self.conv1.weight.dtype)))
        x_APD = F.gelu(self.conv2(x_ADP)).transpose(1, 2)
        positions = x_APD.shape[1]
        if positions > self.positional_embedding.num_embeddings:
            raise ContractError(
                f"mels of {mels_ACM.shape[2]} frames need {positions} positions of 50 Hz; the encoder has "
                f"{self.positional_embedding.num_embeddings}: cut the audio into pieces of 25 s"
            )
        x_APD = x_APD + self.positional_embedding.weight[:positions]
        valid_AP = _first(positions, (num_valid_A + 1) // 2)
        for block in self.blocks:
            x_APD = block(x_APD, valid_AP)
        x_AFD = self.after_norm(self.avg_pooler(x_APD.transpose(1, 2)).transpose(1, 2))
        valid_AF = _first(x_AFD.shape[1], (num_valid_A + 1) // 2 // 2)
        return x_AFD * valid_AF[:, :, None]


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Whisper's positions, float32 ``[positions, width]``: sines in the first half, cosines in the second."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(LONGEST_PERIOD) / (width // 2 - 1)))
    angles = torch.arange(positions)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _first(length: int, counts_A: torch.Tensor) -> torch.Tensor:
    """Bool ``[A, length]``: true before each piece's count."""
    return torch.arange(length, device=counts_A.device)[None, :] < counts_A[:, None]
