"""The adaptor: encoder frames at 25 Hz to decoder-wide features at 12.5 Hz.

Shapes: A audio pieces, F encoder frames, N patches, E encoder width, D decoder width. Reference, section 1.4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from training.config import ModelConfig


class Adaptor(nn.Module):
    """A strided convolution with GELU, then linear, ReLU, linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner = config.encoder.width, config.adaptor.inner_width
        kernel, stride = config.adaptor.kernel_frames, config.adaptor.stride_frames
        self.conv = nn.Conv1d(width, width, kernel_size=kernel, stride=stride, padding=kernel // 2)
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, config.decoder.width)

    def forward(self, frames_AFE: torch.Tensor) -> torch.Tensor:
        """Features ``[A, N, D]``, N = (F - 1) // 2 + 1.

        Frames behind a piece's end must be zero (the encoder returns them so): then a piece's features do not depend
        on what it is batched with.
        """
        x_ANE = F.gelu(self.conv(frames_AFE.transpose(1, 2))).transpose(1, 2)
        return self.linear2(F.relu(self.linear1(x_ANE)))
