"""A plain convolutional classifier of single spoken words, for the model to be held against: three layers, a mean over time, a softmax.

B clips, M mel bins, N mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from manifests.contracts import Audio
from tokenization.mel import HOP_SAMPLES, log_mel

NUM_MELS = 40
FRAMES = 100  # a second, which nearly every digit fits into; a longer one is cut
WIDTHS = (16, 32, 64)
EPOCHS = 20
BATCH = 32
RATE = 1e-3


def classify(
    learnt: Sequence[Audio], words: Sequence[str], told: Sequence[Audio], epochs: int = EPOCHS, seed: int = 0
) -> list[str]:
    """Words for the clips ``told`` (float32 at 16 kHz), by a classifier that learnt from others with theirs."""
    known = sorted(set(words))
    mels_BMN, labels_B = _mels(learnt), torch.tensor([known.index(word) for word in words])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(len(known))
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        for _ in range(epochs):
            for chosen in torch.randperm(len(learnt)).split(BATCH):
                loss = nn.functional.cross_entropy(network(mels_BMN[chosen]), labels_B[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.eval()
    with torch.inference_mode():
        best = torch.cat([network(part) for part in _mels(told).split(BATCH)]).argmax(-1)
    return [known[label] for label in best.tolist()]


def _network(num_words: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, NUM_MELS))]
    for inner, outer in zip((1, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(), nn.MaxPool2d(2)]
    bands = NUM_MELS // 2 ** len(WIDTHS)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d((bands, 1)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(WIDTHS[-1] * bands, num_words)
    )


def _mels(clips: Sequence[Audio]) -> Tensor:
    """``[B, M, N]``, each clip with mean 0 and deviation 1, zeros behind it."""
    mels = np.zeros((len(clips), NUM_MELS, FRAMES), np.float32)
    for place, audio in enumerate(clips):
        mel = log_mel(np.pad(audio, (0, -len(audio) % HOP_SAMPLES)), NUM_MELS).T[:, :FRAMES]
        mels[place, :, : mel.shape[1]] = (mel - mel.mean()) / max(float(mel.std()), 1e-3)
    return torch.from_numpy(mels)
