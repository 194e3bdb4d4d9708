"""The one loop that trains the small checkpoints: fixed seeds, one thread, so that the same machine makes the same weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

WARMUP_STEPS = 40


def train(
    parameters: Iterable[torch.nn.Parameter],
    loss_of: Callable[[int, random.Random], torch.Tensor],
    *,
    num_steps: int,
    peak_lr: float,
    seed: int,
) -> float:
    """``num_steps`` of AdamW on ``loss_of(step, draw)``, the rate falling linearly to a tenth; returns the mean of the last losses."""
    import torch

    draw = random.Random(seed)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = peak_lr * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.1, 1.0 - step / num_steps)
        loss = loss_of(step, draw)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    last = losses[-20:]
    return sum(last) / len(last)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread and a seed of its own inside; what was there before, outside."""
    import torch

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def padded(rows: Iterable[list[int]], filler: int) -> Any:
    """Int64 ``[N, longest]``."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)
