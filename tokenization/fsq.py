"""The network of the FSQ codec: log-mel frames to 25 codes a second and back.

B batch, M mel bins, N spectrum frames (100 a second), F code frames (25 a second, N = 4 F), W width, Q quantised
dimensions (8 of 3 levels: 6561 codes), L labels (letters and the blank), X channels.

Finite scalar quantisation after Mentzer et al. 2023 (arXiv 2309.15505): each dimension is bounded by tanh and rounded to
{-1, 0, 1}; gradients pass the rounding unchanged. The code of a frame is the base-3 number of its digits, lowest first,
as S3 tokenizer v2 numbers them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 3
DIMENSIONS = 8
FRAMES_PER_CODE = 4
# tanh reaches 1 only at infinity; below 1 the outer levels stay reachable and never round past +-1.
BOUND = 0.999


class FsqNetwork(nn.Module):
    """Encoder, quantiser and decoder over normalised log-mel; the corpus' mel statistics are part of the weights."""

    mel_mean: Tensor  # [M]
    mel_std: Tensor  # [M]

    def __init__(self, num_mels: int, width: int, encoder_blocks: int, decoder_blocks: int) -> None:
        super().__init__()
        self.register_buffer("mel_mean", torch.zeros(num_mels))
        self.register_buffer("mel_std", torch.ones(num_mels))
        self.encoder = nn.Sequential(
            nn.Conv1d(num_mels, width, kernel_size=4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv1d(width, width, kernel_size=4, stride=2, padding=1),
            *(ResidualBlock(width) for _ in range(encoder_blocks)),
            ChannelNorm(width),
            nn.Conv1d(width, DIMENSIONS, kernel_size=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(DIMENSIONS, width, kernel_size=3, padding=1),
            *(ResidualBlock(width) for _ in range(decoder_blocks)),
            ChannelNorm(width),
            nn.ConvTranspose1d(width, width, kernel_size=4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose1d(width, num_mels, kernel_size=4, stride=2, padding=1),
        )

    def digits(self, mel_BNM: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Digits ``[B, Q, F]``; N must be a multiple of 4.

        ``lengths_B``: code frames of each item, int64; what is behind them is padding and moves nothing within them.
        """
        return quantise(_through(self.encoder, self.normalise(mel_BNM), mel_BNM.shape[1] // FRAMES_PER_CODE, lengths_B))

    def rebuild(self, digits_BQF: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Log-mel ``[B, N, M]`` of digits, ``lengths_B`` as in ``digits``."""
        return self.denormalise(_through(self.decoder, digits_BQF, digits_BQF.shape[2], lengths_B))

    def encode(self, mel_BNM: Tensor) -> Tensor:
        """Codes int64 ``[B, F]``."""
        return codes_of_digits(self.digits(mel_BNM))

    def decode(self, codes_BF: Tensor) -> Tensor:
        """Log-mel ``[B, N, M]`` of codes int64 ``[B, F]``."""
        return self.rebuild(digits_of_codes(codes_BF))

    def normalise(self, mel_BNM: Tensor) -> Tensor:
        """``[B, M, N]``, each bin with the corpus' mean at 0 and its deviation at 1."""
        return ((mel_BNM - self.mel_mean) / self.mel_std).transpose(1, 2)

    def denormalise(self, mel_BMN: Tensor) -> Tensor:
        """The inverse of ``normalise``, ``[B, N, M]``."""
        return mel_BMN.transpose(1, 2) * self.mel_std + self.mel_mean


class TextHead(nn.Module):
    """What supervises the codes: spells the words from the digits alone. It is not part of the codec."""

    def __init__(self, num_labels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.width, self.num_blocks = width, blocks
        self.layers = nn.Sequential(
            nn.Conv1d(DIMENSIONS, width, kernel_size=3, padding=1),
            *(ResidualBlock(width) for _ in range(blocks)),
            ChannelNorm(width),
            nn.Conv1d(width, num_labels, kernel_size=1),
        )

    def forward(self, digits_BQF: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Log-probabilities ``[B, F, L]``, label 0 the blank; ``lengths_B`` as in ``FsqNetwork.digits``."""
        return _through(self.layers, digits_BQF, digits_BQF.shape[2], lengths_B).transpose(1, 2).log_softmax(dim=-1)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of ``[B, W, F]``: frames do not see each other through it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BWF: Tensor) -> Tensor:
        return self.norm(x_BWF.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """Depthwise convolution over 7 frames (0.28 s), then a channel mixer of twice the width (ConvNeXt's order)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = ChannelNorm(width)
        self.widen = nn.Conv1d(width, 2 * width, kernel_size=1)
        self.narrow = nn.Conv1d(2 * width, width, kernel_size=1)

    def forward(self, x_BWF: Tensor) -> Tensor:
        return x_BWF + self.narrow(F.gelu(self.widen(self.norm(self.over_time(x_BWF)))))


def _through(layers: nn.Sequential, x: Tensor, num_codes: int, lengths_B: Tensor | None) -> Tensor:
    """``[B, X, frames]`` through convolutions; with lengths as if each item ran alone: zeros stand behind its end all the way.

    A layer's frames are ``num_codes`` or a multiple of it.
    """
    if lengths_B is None:
        through: Tensor = layers(x)
        return through
    for layer in layers:
        places = torch.arange(x.shape[2], device=x.device)
        within_BF = places < (lengths_B * (x.shape[2] // num_codes))[:, None]
        x = layer(x * within_BF[:, None])
    return x


def quantise(z_BQF: Tensor) -> Tensor:
    """Digits {-1, 0, 1} of the bounded inputs, straight-through."""
    bounded = torch.tanh(z_BQF) * BOUND
    return bounded + (bounded.round() - bounded).detach()


def codes_of_digits(digits_BQF: Tensor) -> Tensor:
    """int64 ``[B, F]``: sum of (digit + 1) * 3^q."""
    places = LEVELS ** torch.arange(DIMENSIONS, device=digits_BQF.device)
    return ((digits_BQF.detach().round().long() + 1) * places[:, None]).sum(dim=1)


def digits_of_codes(codes_BF: Tensor) -> Tensor:
    """float32 ``[B, Q, F]``: the inverse of ``codes_of_digits``."""
    places = LEVELS ** torch.arange(DIMENSIONS, device=codes_BF.device)
    return ((codes_BF[:, None, :] // places[:, None]) % LEVELS - 1).float()
