"""Peak memory of the head with its loss, by vocabulary and length: all logits at once, a loss a token, and the trainer's sum.

    python benchmarks/head_memory.py [--rows 20000 158720] [--tokens 1024 4096] [--width 64]

Forward and backward on the CPU in float32. What is shown is a process's peak above what it held before the first step, less the
hidden states, the head and their gradients, which any way needs. Each cell has a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.own_process import in_own_process  # noqa: E402  (the path comes first)
from training.head import head_losses, weighted_loss  # noqa: E402

WAYS = ("all logits", "head_losses", "weighted_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 158_720])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    print(f"| rows | tokens | {', MiB | '.join(WAYS)}, MiB |\n|{'---|' * (2 + len(WAYS))}")
    for rows in options.rows:
        for tokens in options.tokens:
            peaks = [in_own_process(peak_mib, rows, tokens, options.width, way)[0] for way in WAYS]
            print(f"| {rows:,} | {tokens:,} | {' | '.join(f'{peak:.0f}' for peak in peaks)} |", flush=True)


def peak_mib(rows: int, tokens: int, width: int, way: str) -> float:
    """Of one forward and backward, above the states, the head and their gradients."""
    torch.set_num_threads(1)
    hidden_ND = torch.randn(tokens, width, requires_grad=True)
    weight_VD = torch.randn(rows, width, requires_grad=True)
    targets_N = torch.randint(0, rows, (tokens,))
    loss_of(hidden_ND[:2], weight_VD, targets_N[:2], way).backward()  # gradients and the libraries' own memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss_of(hidden_ND, weight_VD, targets_N, way).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def loss_of(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, way: str) -> torch.Tensor:
    if way == "head_losses":
        return head_losses(hidden_ND, weight_VD, targets_N)[0].sum()
    if way == "weighted_loss":
        return weighted_loss(hidden_ND, weight_VD, targets_N, torch.ones(len(targets_N)))[0]
    return F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, reduction="sum")


if __name__ == "__main__":
    main()
