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
from pipeline.cli_options import make_engine
from pipeline.ledger import read_ledger
from pipeline.recipe import BuildRecipe
from pipeline.sources import list_inputs

READ = Path(__file__).parents[1].parent / "shared" / "speech" / "read"
SUMMED = ("audio_s", "gated_audio_s", "wall_s", "cpu_s", "model_cpu_s", "setup_s")  # columns of the ledger
MAX_FILES = 32  # of a unit: two minutes of read sentences
FLAC_BYTES_A_MINUTE = 1_000_000  # of 16 kHz read speech, near enough to choose how many files make some minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=[str(READ)])
    parser.add_argument("--recipe", default="offline")
    parser.add_argument("--engine", default="ray", choices=["ray", "local"])
    parser.add_argument("--minutes", type=float, default=4.0, help="take files until about so much audio")
    parser.add_argument("--out", default="benchmarks/results", help="folder for the JSON and the table")
    options = parser.parse_args()
    files = choose(options.sources, options.minutes)
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(BuildRecipe, "pipeline", options.recipe)
        result = measure(files, recipe, options.engine, f"{folder}/corpus")
    write_result(result, options.out, "build_speed", table(result))


def write_result(result: dict[str, Any], out: str, name: str, text: str) -> None:
    """The result as ``<name>.json`` and its table as ``<name>.md`` in the folder ``out``, and the table on the screen."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / f"{name}.md").write_text(text + "\n")
    print(text)


def choose(sources: list[str], minutes: float) -> list[str]:
    """The first inputs of the sources that hold about so much audio."""
    chosen, num_bytes = [], 0
    for item in list_inputs(sources):
        if num_bytes > minutes * FLAC_BYTES_A_MINUTE:
            break
        chosen.append(item.uri)
        num_bytes += item.num_bytes
    return chosen


def measure(files: list[str], recipe: BuildRecipe, engine: str, corpus_uri: str) -> dict[str, Any]:
    """Build a new corpus and sum its ledger by part."""
    # Enough units that two workers of a pool can share them, and that the last one is a small part of the whole.
    units = recipe.units.model_copy(update={"max_inputs": max(1, min(len(files) // 8, MAX_FILES))})
    began, began_cpu = time.perf_counter(), time.process_time()
    built = build(files, corpus_uri, recipe.model_copy(update={"units": units}), make_engine(engine))
    wall_s, driver_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    assert isinstance(built, BuildResult)
    assert built.run_id is not None
    parts: dict[str, dict[str, float]] = {}
    for row in read_ledger(Store(corpus_uri), built.run_id).to_pylist():
        name = row["part"].split("/")[0] if row["part"].startswith("clips/") else row["part"].split("/")[-1]
        part = parts.setdefault(name, dict.fromkeys(SUMMED, 0.0))
        for key in SUMMED:
            part[key] += row[key]
    cpu_s = sum(part["cpu_s"] for part in parts.values())
    return {
        "machine": machine(),
        "recipe": recipe.name,
        "engine": engine,
        "num_inputs": built.num_inputs,
        "audio_s": built.audio_s,
        "wall_s": wall_s,
        "audio_s_per_s": built.audio_s / wall_s,
        "cpu_s": cpu_s,
        "driver_cpu_s": driver_cpu_s,
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
