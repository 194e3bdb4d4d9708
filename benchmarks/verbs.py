"""Stepwell's verbs as benchmarks call them: each in a process of its own, with the checkout's code. All raise CalledProcessError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from training.checkpoint import complete

ROOT = Path(__file__).parents[1]


def stepwell(*words: str | Path) -> None:
    """One of the command's verbs."""
    subprocess.run([sys.executable, "-m", "stepwell", *map(str, words)], cwd=ROOT, check=True)


def build_corpus(manifest: Path, corpus: Path) -> None:
    """A corpus in which every recording is one clip with the manifest's text."""
    recipe = Path(__file__).parent / "whole_recordings.yaml"
    stepwell("corpus", "build", manifest, "--out", corpus, "--recipe", recipe, "--engine", "local")


def make_pack(corpus: Path, pack: Path, recipe: Path, split: str, tokenizer: Path) -> None:
    """All of the corpus as one split, by the settings of ``recipe``; the recipe that says so is left beside the pack."""
    own = pack.parent / f"{pack.name}.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(recipe.read_text(encoding="utf-8") + f"splits: {{{split}: 1.0}}\n", encoding="utf-8")
    stepwell("corpus", "pack", corpus, "--out", pack, "--recipe", own, "--tokenizer", tokenizer)


def train_run(recipe: str | Path, pack: Path, tokenizer: Path, run: Path) -> None:
    """All stages of the recipe; a run that was cut off goes on."""
    resume = ["--resume"] if complete(str(run)) else []
    stepwell("train", "run", "--recipe", recipe, "--pack", pack, "--tokenizer", tokenizer, "--run", run, *resume)
