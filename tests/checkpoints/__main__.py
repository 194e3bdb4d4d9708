"""Trains the small checkpoints: ``python -m tests.checkpoints ./checkpoints whisper``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.checkpoints.trained import TRAINERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoints", description=__doc__)
    parser.add_argument("out", type=Path, help="folder; each checkpoint becomes one below it")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(TRAINERS)}; all of them by default")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(TRAINERS):
        parser.error(f"checkpoint {min(unknown)!r} is unknown; there are {', '.join(TRAINERS)}")
    for name in arguments.names or TRAINERS:
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        began_s, cpu_s = time.monotonic(), time.process_time()
        TRAINERS[name](folder)
        print(f"{folder}: trained in {time.monotonic() - began_s:.0f} s ({time.process_time() - cpu_s:.0f} CPU seconds)")


if __name__ == "__main__":
    main()
