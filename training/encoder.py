"""The audio encoder: Whisper's blocks under the published names, pooled to 25 frames a second.

Shapes: A audio pieces, C mel bands, M mel frames, P positions at 50 Hz, F frames at 25 Hz, D width, H heads, W head width,
N positions of several groups of pieces, one behind the other.
Reference, section 1.4. Queries and keys each carry d^-0.25 there; scaling the product by d^-0.5 is the same number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from manifests.errors import ContractError
from training.config import EncoderConfig

LONGEST_PERIOD = 10_000.0

# (q, k, v) [..., H, W] -> [..., H, W].
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class EncoderAttention(nn.Module):
    """The projections of attention, of which the key's has no bias; the mixing between them is the caller's."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mix: Mix) -> torch.Tensor:
        q, k, v = (project(x).unflatten(-1, (self.num_heads, -1)) for project in (self.query, self.key, self.value))
        return self.out(mix(q, k, v).flatten(-2))


class EncoderBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = EncoderAttention(width, num_heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mix: Mix) -> torch.Tensor:
        x = x + self.attn(self.attn_ln(x), mix)
        return x + self.mlp(self.mlp_ln(x))


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
        x_APD = self._stem(mels_ACM)
        mix = partial(_mix_within, valid_AP=_first(x_APD.shape[1], (num_valid_A + 1) // 2))
        for block in self.blocks:
            x_APD = block(x_APD, mix)
        return self._pool(x_APD, num_valid_A)

    def all_groups(
        self, groups: Sequence[tuple[torch.Tensor, torch.Tensor]], kernel: Callable[..., torch.Tensor]
    ) -> list[torch.Tensor]:
        """As ``forward`` of each group's mels and counts, with the blocks over all of them at once.

        A GPU has finished a block over one small group before the next is launched. ``kernel``: of bidirectional attention over ragged
        pieces, as ``attention.varlen_kernel`` gives it; padding is pieces of its own to it.
        """
        stems = [self._stem(mels_ACM) for mels_ACM, _ in groups]
        x_ND = torch.cat([x_APD.flatten(0, 1) for x_APD in stems])
        lengths = [_own_and_padding(x_APD.shape[1], num_valid_A) for x_APD, (_, num_valid_A) in zip(stems, groups, strict=True)]
        starts = F.pad(torch.cat(lengths).cumsum(0, dtype=torch.int32), (1, 0))
        longest = max(x_APD.shape[1] for x_APD in stems)

        def mix(q_NHW: torch.Tensor, k_NHW: torch.Tensor, v_NHW: torch.Tensor) -> torch.Tensor:
            return kernel(q_NHW, k_NHW, v_NHW, starts, starts, longest, longest)

        for block in self.blocks:
            x_ND = block(x_ND, mix)
        parts = x_ND.split([x_APD.shape[0] * x_APD.shape[1] for x_APD in stems])
        return [
            self._pool(part.view_as(x_APD), num_valid_A)
            for part, x_APD, (_, num_valid_A) in zip(parts, stems, groups, strict=True)
        ]

    def _stem(self, mels_ACM: torch.Tensor) -> torch.Tensor:
        """What the blocks read, ``[A, P, D]``."""
        x_ADP = F.gelu(self.conv1(mels_ACM.to(self.conv1.weight.dtype)))
        x_APD = F.gelu(self.conv2(x_ADP)).transpose(1, 2)
        positions = x_APD.shape[1]
        if positions > self.positional_embedding.num_embeddings:
            raise ContractError(
                f"mels of {mels_ACM.shape[2]} frames need {positions} positions of 50 Hz; the encoder has "
                f"{self.positional_embedding.num_embeddings}: cut the audio into pieces of 25 s"
            )
        return x_APD + self.positional_embedding.weight[:positions]

    def _pool(self, x_APD: torch.Tensor, num_valid_A: torch.Tensor) -> torch.Tensor:
        """Frames ``[A, F, D]`` of what the blocks give."""
        x_AFD = self.after_norm(self.avg_pooler(x_APD.transpose(1, 2)).transpose(1, 2))
        valid_AF = _first(x_AFD.shape[1], (num_valid_A + 1) // 2 // 2)
        return x_AFD * valid_AF[:, :, None]


def _mix_within(q_APHW: torch.Tensor, k_APHW: torch.Tensor, v_APHW: torch.Tensor, valid_AP: torch.Tensor) -> torch.Tensor:
    """Bidirectional attention to valid positions."""
    q_AHPW, k_AHPW, v_AHPW = (x.transpose(1, 2) for x in (q_APHW, k_APHW, v_APHW))
    return F.scaled_dot_product_attention(q_AHPW, k_AHPW, v_AHPW, attn_mask=valid_AP[:, None, None, :]).transpose(1, 2)


def _own_and_padding(positions: int, num_valid_A: torch.Tensor) -> torch.Tensor:
    """``[2 A]``: how many of a piece's positions are its own, and how many behind them are not, piece by piece."""
    own_A = (num_valid_A + 1) // 2
    return torch.stack([own_A, positions - own_A], dim=1).flatten()


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Whisper's positions, float32 ``[positions, width]``: sines in the first half, cosines in the second."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(LONGEST_PERIOD) / (width // 2 - 1)))
    angles = torch.arange(positions)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _first(length: int, counts_A: torch.Tensor) -> torch.Tensor:
    """Bool ``[A, length]``: true before each piece's count."""
    return torch.arange(length, device=counts_A.device)[None, :] < counts_A[:, None]
