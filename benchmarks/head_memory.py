"""Peak memory of the head with its loss, by vocabulary and length: in chunks, and with all logits at once.

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
from training.head import head_losses  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 158_720])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    print("| rows | tokens | all logits, MiB | in chunks, MiB |\n|---|---|---|---|")
    for rows in options.rows:
        for tokens in options.tokens:
            whole, chunked = (
                in_own_process(peak_mib, rows, tokens, options.width, is_chunked)[0] for is_chunked in (False, True)
            )
            print(f"| {rows:,} | {tokens:,} | {whole:.0f} | {chunked:.0f} |", flush=True)


def peak_mib(rows: int, tokens: int, width: int, is_chunked: bool) -> float:
    """Of one forward and backward, above the states, the head and their gradients."""
    torch.set_num_threads(1)
    hidden_ND = torch.randn(tokens, width, requires_grad=True)
    weight_VD = torch.randn(rows, width, requires_grad=True)
    targets_N = torch.randint(0, rows, (tokens,))
    loss_of(hidden_ND[:2], weight_VD, targets_N[:2], is_chunked).backward()  # gradients and the libraries' own memory
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss_of(hidden_ND, weight_VD, targets_N, is_chunked).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def loss_of(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, is_chunked: bool) -> torch.Tensor:
    if is_chunked:
        return head_losses(hidden_ND, weight_VD, targets_N)[0].sum()
    return F.cross_entropy(hidden_ND @ weight_VD.T, targets_N, reduction="sum")


if __name__ == "__main__":
    main()
