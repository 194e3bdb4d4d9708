"""SIGKILL at random moments of one build over all the speech beside the checkout: nothing lost, nothing twice.

By default a light recipe on the engine ``local``; ``make soak`` runs the recipe ``offline`` on Ray (STEPWELL_SOAK=1).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from manifests.corpus import Corpus
from manifests.recipes import load_recipe
from pipeline.recipe import BuildRecipe

NUM_KILLS = 20
IS_SOAK = bool(os.environ.get("STEPWELL_SOAK"))
# Units of about a minute.
UNITS = {"max_inputs": 100, "max_bytes": 1_500_000}


def num_commits(corpus: Path) -> int:
    return sum(name.endswith(".json") for _, _, names in os.walk(corpus / "commits") for name in names)


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    """Processes that do works: the keeper's child, or Ray's actors."""
    return [p for p in driver.children(recursive=True) if "ray::Worker" in p.name() or "pipeline.keeper" in " ".join(p.cmdline())]


def kill_one(driver: psutil.Process, chance: random.Random) -> str:
    """SIGKILL to the driver with all it started, to the driver alone, or to one worker."""
    what = chance.choice(["all", "driver", "worker"])
    try:
        workers = workers_of(driver)
        if what == "worker" and workers:
            chance.choice(workers).kill()
            return what
        victims = [driver, *(driver.children(recursive=True) if what == "all" else [])]
        for victim in victims:
            victim.kill()
    except psutil.NoSuchProcess:
        pass  # it ended between two lines
    return what if what != "worker" else "driver"


@pytest.mark.slow
@pytest.mark.timeout(0 if IS_SOAK else 900)
def test_twenty_kills_lose_nothing_and_do_nothing_twice(shared, light, tmp_path, assert_equal_corpora):
    recipe = load_recipe(BuildRecipe, "pipeline", "offline") if IS_SOAK else light(annotators={"signal": {"kind": "signal"}})
    recipe = recipe.model_copy(update={"units": type(recipe.units)(**UNITS)})
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.model_dump_json())
    sources = [str(shared / "testdata" / "audio"), str(shared / "testdata" / "broken"), str(shared / "speech")]
    engine = "ray" if IS_SOAK else "local"
    command = [sys.executable, "-m", "stepwell", "corpus", "build", *sources, "--recipe", str(path), "--engine", engine, "--json"]
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    subprocess.run([*command, "--out", str(unbroken)], check=True, capture_output=True)

    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance, kills, seen = random.Random(seed), [], 0
    goals = sorted(chance.sample(range(1, num_commits(unbroken) - 1), NUM_KILLS))
    process = None
    with open(tmp_path / "log", "wb") as log:
        while len(kills) < NUM_KILLS:
            if process is None or process.poll() is not None:
                assert process is None or process.returncode != 0, f"finished before kill {len(kills) + 1}"
                process = subprocess.Popen([*command, "--out", str(killed)], stdout=log, stderr=log, start_new_session=True)
            # At a commit count drawn beforehand, each after at least one new commit, then a moment somewhere in the work.
            while process.poll() is None and num_commits(killed) < max(goals[len(kills)], seen + 1):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
            if process.poll() is None:
                seen = num_commits(killed)
                kills.append(kill_one(psutil.Process(process.pid), chance))
                if kills[-1] != "worker":
                    process.wait()
    if process.poll() is None:
        process.wait()
    last = subprocess.run([*command, "--out", str(killed)], capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    print({what: kills.count(what) for what in set(kills)}, json.loads(last.stdout)["num_tasks_reused"])
    assert_equal_corpora(str(killed), str(unbroken))
    assert Corpus.open(str(killed)).inputs().num_rows == len({*Corpus.open(str(killed)).inputs()["input_id"].to_pylist()})
