"""How well the simulation predicts real builds: rates from one run, wall time of the others, predicted over measured.

    .venv/bin/python benchmarks/simulation_check.py                    # ten minutes of ../shared/speech/read, 1 and 2 CPUs
    .venv/bin/python benchmarks/simulation_check.py --minutes 2 --cpus 1 2

Every run is a build of the same files by the engine `ray`, in a process and a corpus of its own; the rates of each predict
all of them. Machines are shared and noisy: run it when nothing else does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from manifests.console import aligned, duration
from manifests.recipes import load_recipe, resolved
from manifests.store import Store
from pipeline.heartbeat import Heartbeat, read_heartbeats
from pipeline.rates import Rates, measured_rates
from pipeline.recipe import BuildRecipe
from pipeline.simulation import Cluster, play
from pipeline.sources import list_inputs

READ = Path(__file__).parents[1].parent / "shared" / "speech" / "read"
FLAC_BYTES_A_MINUTE = 1_000_000  # of 16 kHz read speech, near enough to choose how many files make some minutes
UNITS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(READ))
    parser.add_argument("--recipe", default="offline")
    parser.add_argument("--without", nargs="*", default=["asr", "diarization"], help="parts of the recipe to leave out")
    parser.add_argument("--minutes", type=float, default=10.0, help="take files until about so much audio")
    parser.add_argument("--cpus", type=int, nargs="+", default=[1, 2], help="one run with each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = build_all(options, Path(folder))
    print("\n".join(table(runs)))


def build_all(options: argparse.Namespace, folder: Path) -> dict[int, tuple[Heartbeat, Rates]]:
    """CPUs -> (the run, its rates)."""
    chosen, num_bytes = [], 0
    for item in list_inputs([options.source]):
        if num_bytes > options.minutes * FLAC_BYTES_A_MINUTE:
            break
        chosen.append(item.uri)
        num_bytes += item.num_bytes
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(lighter(options.recipe, options.without, max(1, len(chosen) // UNITS))))  # JSON is YAML
    runs = {}
    for num_cpus in options.cpus:
        out = str(folder / f"corpus-{num_cpus}")
        verb = [sys.executable, "-m", "stepwell", "corpus", "build", *chosen, "--out", out, "--recipe", str(recipe)]
        subprocess.run([*verb, "--engine", "ray", "--num-cpus", str(num_cpus)], check=True, stdout=subprocess.DEVNULL)
        runs[num_cpus] = (read_heartbeats(Store(out))[-1], measured_rates(out))
    return runs


def lighter(name: str, without: list[str], max_inputs: int) -> dict[str, object]:
    """The recipe without some parts, in units of so many inputs, so that every worker gets several."""
    recipe = resolved(load_recipe(BuildRecipe, "pipeline", name))
    for kind in ("segmenters", "annotators"):
        recipe[kind] = {part: config for part, config in recipe[kind].items() if part not in without}
    if recipe["clip_set"]["turns"] not in recipe["segmenters"]:
        recipe["clip_set"]["turns"] = None
    recipe["units"]["max_inputs"] = max_inputs
    return recipe


def table(runs: dict[int, tuple[Heartbeat, Rates]]) -> list[str]:
    """Every run predicted by the rates of every run."""
    rows = [["measured on", "predicts", "predicted", "measured", "predicted / measured"]]
    for of, (_, rates) in runs.items():
        for num_cpus, (run, _) in runs.items():
            wall_s = play(rates, rates.unit_audio_s, Cluster(num_cpus)).wall_s
            row = [f"{of} CPUs", f"{num_cpus} CPUs", duration(wall_s), duration(run.wall_s), f"{wall_s / run.wall_s:.2f}"]
            rows.append(row)
    starts = [
        f"{of} CPUs: worker start {rates.worker_start_s:.2f} s, dispatch {rates.dispatch_s * 1000:.1f} ms"
        for of, (_, rates) in runs.items()
    ]
    return [*aligned(rows), *starts]


if __name__ == "__main__":
    main()
