"""Training on one GPU, under any ``python3`` with torch 2.11 or later and NumPy; nothing else of this project's environment is needed.

    .venv/bin/python -m benchmarks.gpu.made_material     (where the environment is; the file travels with the checkout)
    python3 -m benchmarks.gpu [--sizes 0.5b 1.5b 3b] [--steps 8]

1. Whether the ways of attention on CUDA agree with the one on the CPU: loss and gradients of the smallest sizes' shapes, float32 by
   FlexAttention, bfloat16 by the varlen kernel.
2. Per size: step time and MFU in bfloat16 on mixed sequences that hear, speak and write, as the trainer computes them (all but the
   encoder is trained, fused AdamW, clipping, deterministic kernels), eager and with compiled blocks; peak memory; how long a checkpoint
   stops the loop. Blocks are computed again in the backward pass only where memory does not hold them.

Where that cannot be, it says so, measures nothing, and ends well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

NEEDS_TORCH = (2, 11)


def why_not(device: str, file: Path) -> str | None:
    """The reason why nothing can be measured here; None where it can."""
    try:
        import torch
    except ImportError as error:
        return f"this python3 has no torch ({error})"
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if device == "cuda" and version < NEEDS_TORCH:
        return f"torch {torch.__version__} is older than {'.'.join(map(str, NEEDS_TORCH))}, from which its varlen attention is needed"
    if device == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if not file.exists():
        return f"{file} is not there; make it with `.venv/bin/python -m benchmarks.gpu.made_material` and bring it along"
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["0.5b", "1.5b", "3b"])
    parser.add_argument("--blocks", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--steps", type=int, default=8, help="that are measured, behind two that are not")
    parser.add_argument("--material", type=Path, default=Path(__file__).parent / "material.pt")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the benchmark itself")
    options = parser.parse_args(arguments)
    if (reason := why_not(options.device, options.material)) is not None:
        print(f"not measured: {reason}")
        return
    for line in lines(options.material, options.device, options.sizes, options.blocks, options.steps):
        print(line, flush=True)


def lines(file: Path, device: str, sizes: Sequence[str], blocks: Sequence[str], steps: int) -> Iterable[str]:
    """The report, as it is measured."""
    from benchmarks.gpu import agreement
    from benchmarks.gpu import steps as stepping
    from benchmarks.gpu.material import load

    material = load(file)
    yield from stepping.head(material, device)
    yield from agreement.report(material, device)
    yield "| size | blocks | ms a step | tokens a second | MFU | peak memory, GiB | checkpoint: first stop, next stops, s |"
    yield "|---|---|---|---|---|---|---|"
    for size in sizes:
        for kind in blocks:
            yield stepping.row(material, size, device, steps, compiles=kind == "compiled")


if __name__ == "__main__":
    main(sys.argv[1:])
