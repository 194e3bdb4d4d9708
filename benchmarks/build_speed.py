"""Audio-seconds per second of every part of a build and of the whole, and the share of CPU time inside models.

    make bench                                                # a quick part of ../shared/speech/read
    .venv/bin/python benchmarks/build_speed.py --minutes 78   # all of it
    .venv/bin/python benchmarks/build_speed.py my/recordings --recipe offline --engine local

Figures are from the build's own ledger. Machines are shared and noisy: compare rows within one run, not runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from manifests.recipes import load_recipe
from manifests.store import Store
from pipeline.build import BuildResult, build
from pipeline.cli import make_engine
from pipeline.recipe import BuildRecipe
from pipeline.sources import list_inputs

READ = Path(__file__).parents[1].parent / "shared" / "speech" / "read"
FLAC_BYTES_A_MINUTE = 1_000_000  # of 16 kHz read speech, near enough to choose how many files make some minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=[str(READ)])
    parser.add_argument("--recipe", default="offline")
    parser.add_argument("--engine", default="ray", choices=["ray", "local"])
    parser.add_argument("--minutes", type=float, default=4.0, help="take files until about so much audio")
    parser.add_argument("--out", default="benchmarks/results", help="folder for the JSON and the table")
    options = parser.parse_args()
    result = measure(options.sources, options.recipe, options.engine, options.minutes)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "build_speed.md").write_text(table(result) + "\n")
    print(table(result))


def measure(sources: list[str], recipe_name: str, engine: str, minutes: float) -> dict[str, Any]:
    """Build a part of the sources into a temporary corpus and sum its ledger."""
    chosen, num_bytes = [], 0
    for item in list_inputs(sources):
        if num_bytes > minutes * FLAC_BYTES_A_MINUTE:
            break
        chosen.append(item.uri)
        num_bytes += item.num_bytes
    recipe = load_recipe(BuildRecipe, "pipeline", recipe_name)
    # Enough units that two workers of a pool can share them.
    units = recipe.units.model_copy(update={"max_inputs": max(1, len(chosen) // 8)})
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        built = build(chosen, f"{folder}/corpus", recipe.model_copy(update={"units": units}), make_engine(engine))
        wall_s = time.perf_counter() - began
        assert isinstance(built, BuildResult)
        ledger = Store(f"{folder}/corpus").read_table(f"runs/{built.run_id}/ledger.parquet").to_pylist()
    parts: dict[str, dict[str, float]] = {}
    for row in ledger:
        name = row["part"].split("/")[0] if row["part"].startswith("clips/") else row["part"].split("/")[-1]
        part = parts.setdefault(name, dict.fromkeys(("audio_s", "wall_s", "cpu_s", "model_cpu_s"), 0.0))
        for key in part:
            part[key] += row[key]
    cpu_s = sum(part["cpu_s"] for part in parts.values())
    return {
        "machine": machine(),
        "recipe": recipe_name,
        "engine": engine,
        "num_inputs": built.num_inputs,
        "audio_s": built.audio_s,
        "wall_s": wall_s,
        "audio_s_per_s": built.audio_s / wall_s,
        "cpu_s": cpu_s,
        "model_cpu_share": sum(part["model_cpu_s"] for part in parts.values()) / cpu_s,
        "parts": parts,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return {"cpu": model, "num_cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown; loading a model counts in ``wall_s`` of the unit that met it first."""
    host = result["machine"]
    lines = [
        f"{result['audio_s']:.0f} s of audio, recipe {result['recipe']}, engine {result['engine']}, "
        f"{host['num_cpus']} CPUs ({host['cpu']})",
        "",
        "| part | audio-s/s (wall of the part) | audio-s/s (CPU) | CPU s | in the model |",
        "|---|---|---|---|---|",
    ]
    for name, part in sorted(result["parts"].items(), key=lambda item: -item[1]["cpu_s"]):
        inside = part["model_cpu_s"] / part["cpu_s"] if part["cpu_s"] else 0.0
        wall, cpu = part["audio_s"] / max(part["wall_s"], 1e-9), part["audio_s"] / max(part["cpu_s"], 1e-9)
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {part['cpu_s']:.1f} | {inside:.0%} |")
    whole = result["audio_s"] / max(result["cpu_s"], 1e-9)
    lines.append(
        f"| **whole build** | {result['audio_s_per_s']:.1f} | {whole:.1f} | {result['cpu_s']:.1f} | {result['model_cpu_share']:.0%} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
