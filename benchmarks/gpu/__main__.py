"""Training on one GPU, under any ``python3`` from 3.11 with torch 2.11 or later and NumPy; nothing else of this project's environment is needed.

    .venv/bin/python -m benchmarks.gpu.made_material     (where the environment is; the file travels with the checkout)
    python3 -m benchmarks.gpu [--sizes 0.5b 1.5b 3b] [--blocks eager compiled] [--minutes 9]

1. ``card``: what the GPU does of its data sheet in plain products and copies.
2. ``attention``: the varlen kernel at each size's heads beside plain attention in float32, with its time.
3. ``agreement``: loss and gradients of a small model beside the CPU's, float32 by FlexAttention, bfloat16 by the varlen kernel.
4. A row for each size and kind of blocks: step time and MFU in bfloat16 on mixed sequences that hear, speak and write, as the trainer
   computes them (all but the encoder is trained, fused AdamW, clipping, deterministic kernels); where a step's time goes, by part and by
   kernel; peak memory; how long a checkpoint stops the loop. Blocks are computed again in the backward pass only where memory does not
   hold them. ``free``: compiled blocks without deterministic kernels, to see what these cost.

Each part has a process of its own: one that fails or takes too long costs the others nothing, and says why. What was found is printed
as it comes, and written behind every part to ``--out``: ``gpu.json`` (all of it), ``gpu.md`` (the tables), and ``gpu-logs/`` (what parts
printed). Where nothing can be measured it says so, and ends well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.page import lines_of, page

NEEDS_PYTHON, NEEDS_TORCH = (3, 11), (2, 11)
LEAST_S, MOST_S = 20.0, 240.0  # of a part: with less left it is not begun; with more it is ended
SAID_LINES = 40  # of what a part that failed has printed, kept with the rest
ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")
BLOCKS = ("eager", "compiled", "free")

Found = dict[str, Any]


def why_not(device: str, file: Path) -> str | None:
    """The reason why nothing can be measured here; None where it can."""
    if sys.version_info[:2] < NEEDS_PYTHON:
        return f"Python {platform.python_version()} is older than {'.'.join(map(str, NEEDS_PYTHON))}"
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
    parser.add_argument("--sizes", nargs="*", default=["0.5b", "1.5b", "3b"])
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=["eager", "compiled"])
    parser.add_argument("--steps", type=int, default=8, help="that are measured, behind two that are not")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no part is begun, and the last one is ended")
    parser.add_argument("--material", type=Path, default=Path(__file__).parent / "material.pt")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results", help="folder of what was found")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the benchmark itself")
    options = parser.parse_args(arguments)
    if (reason := why_not(options.device, options.material)) is not None:
        print(f"not measured: {reason}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[Found] = []
    for one in each_part(options):
        found.append(one)
        for line in lines_of(one):
            print(line, flush=True)
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (options.out / "gpu.md").write_text(page(found), encoding="utf-8")
    print(f"written to {options.out}/gpu.json and gpu.md")


def each_part(options: argparse.Namespace) -> Iterator[Found]:
    """What each part has found, in their order."""
    ends_at = time.monotonic() + 60 * options.minutes
    common = {"device": options.device, "material": str(options.material), "sizes": options.sizes, "steps": options.steps}
    parts: list[Found] = [{"part": name} for name in ("card", "attention", "agreement")]
    parts += [{"part": "steps", "size": size, "blocks": blocks} for size in options.sizes for blocks in options.blocks]
    for part in parts:
        yield part | found_by({**common, **part}, options.out / "gpu-logs", ends_at - time.monotonic())


def found_by(part: Found, logs: Path, left_s: float, most_s: float = MOST_S) -> Found:
    """What a part finds in a process of its own; ``not_measured`` says why it found nothing."""
    if left_s < LEAST_S:
        return {"not_measured": "the time is over; give more --minutes, or leave out what is measured already"}
    logs.mkdir(parents=True, exist_ok=True)
    name = "-".join(str(part[key]) for key in ("part", "size", "blocks") if key in part)
    out, log = logs / f"{name}.json", logs / f"{name}.log"
    out.unlink(missing_ok=True)
    limit_s, began = min(left_s, most_s), time.monotonic()
    command = [sys.executable, "-m", "benchmarks.gpu.part", json.dumps(part), str(out.absolute())]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=file, stderr=file, process_group=0)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return {"not_measured": f"it had not ended after {limit_s:.0f} s; see {log}"}
        finally:
            with suppress(ProcessLookupError):  # compilers that a part started, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SAID_LINES:]
        return {"not_measured": f"it ended with {code}: {reason_in(said)}; see {log}", "said": said}
    return {**json.loads(out.read_text(encoding="utf-8")), "took_s": round(time.monotonic() - began, 1)}


def reason_in(said: Sequence[str]) -> str:
    """The line that names the last error a process told of, else its last line: CUDA's errors end with advice."""
    lines = [line.strip() for line in said if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return [*lines, *errors][-1][-300:] if lines else "it said nothing"


if __name__ == "__main__":
    main(sys.argv[1:])
