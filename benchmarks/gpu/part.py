"""One part of the benchmark in this process: ``python3 -m benchmarks.gpu.part '{"part": "steps", ...}' OUT.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import agreement, card, kernels, steps
from benchmarks.gpu.material import load


def find(asked: dict[str, Any]) -> dict[str, Any]:
    """What the part that is asked for finds."""
    device = asked["device"]
    match asked["part"]:
        case "card":
            return card.measure(device)
        case "attention":
            return kernels.compare(load(Path(asked["material"])), device, asked["sizes"])
        case "agreement":
            return agreement.compare(load(Path(asked["material"])), device)
        case "steps":
            return steps.measure(load(Path(asked["material"])), asked["size"], device, asked["steps"], asked["blocks"])
        case name:
            raise ValueError(f"there is no part {name!r}")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(find(json.loads(sys.argv[1]))), encoding="utf-8")
