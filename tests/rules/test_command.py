from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "ray", "onnxruntime", "transformers", "whisperx", "pyannote.audio", "datasets", "webdataset"]
LIGHT_FOLDERS = ["manifests", "annotators", "tokenization", "pipeline", "training"]


def loaded_after(program: str, repository: Path) -> list[str]:
    """Which heavy packages a fresh interpreter holds after running ``program``."""
    report = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"], cwd=repository, capture_output=True, text=True, check=True, timeout=120
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_command_is_light(repository: Path) -> None:
    program = """
import sys
import stepwell
sys.argv = ["stepwell", "--help"]
try:
    stepwell.main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_after(program, repository) == []


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_verbs_and_recipes_of_a_folder_are_light(folder: str, repository: Path) -> None:
    modules = [f"{folder}.{name}" for name in ("cli", "recipe", "catalog") if (repository / folder / f"{name}.py").exists()]
    assert modules
    assert loaded_after("\n".join(f"import {module}" for module in modules), repository) == []


@pytest.mark.slow
def test_the_trainer_stands_without_the_annotators_packages(repository: Path) -> None:
    """DESIGN section 5: trainer code runs where whisperx, pyannote and Ray are not installed."""
    program = """
import importlib, pathlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("whisperx", "pyannote", "silero_vad", "pocketsphinx", "speechmos", "onnxruntime", "ray"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
for path in sorted(pathlib.Path("training").glob("*.py")):
    importlib.import_module(f"training.{path.stem}")
"""
    held = loaded_after(program, repository)
    assert set(held).isdisjoint({"ray", "whisperx", "pyannote.audio", "onnxruntime"})
