"""A folder of recordings with one that is poison to the parts of ``poison_parts``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from manifests.recipes import decode_recipe
from pipeline.recipe import BuildRecipe

RATE_HZ = 16_000
NUM_RECORDINGS = 7
POISON = 3


@pytest.fixture(scope="session", autouse=True)
def parts_on_path() -> None:
    """``poison_parts`` can be imported here, in the keeper's children and in Ray's workers."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="session")
def poisoned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven recordings of two seconds; r3.wav is a square wave at full scale."""
    folder = tmp_path_factory.mktemp("poisoned")
    for i in range(NUM_RECORDINGS):
        wave = np.sin(np.arange(2 * RATE_HZ) * (0.05 + 0.01 * i))
        soundfile.write(folder / f"r{i}.wav", np.sign(wave) if i == POISON else 0.3 * wave, RATE_HZ)
    return folder


@pytest.fixture(scope="session")
def poisoned_recipe() -> Callable[..., BuildRecipe]:
    """``poisoned_recipe(part="segmenter" or "annotator", how=..., ...)``: one unit, a limit of 1 GB."""

    def make(
        part: str, how: str, limits: dict[str, Any] | None = None, segmenter: str = "Segmenter", **parameters: Any
    ) -> BuildRecipe:
        def custom(kind: str, how: str, **more: Any) -> dict[str, Any]:
            return {"kind": "custom", "target": f"poison_parts:Poisoned{kind}", "parameters": {"how": how, **more}}

        # What hangs is ended soon; what eats a gigabyte has the time to, on a busy machine.
        timeout_s = 2.0 if how == "hang" else 60.0
        recipe = {
            "name": "poisoned",
            "segmenters": {"vad": custom(segmenter, how if part == "segmenter" else "0")},
            "clip_set": {"turns": None, "pad_s": 0.0},
            "annotators": {"heard": custom("Annotator", how, **parameters)} if part == "annotator" else {},
            "limits": {"memory_bytes": 1 << 30, "timeout_s": timeout_s, "timeout_x": 0.0, **(limits or {})},
        }
        return decode_recipe(BuildRecipe, yaml.safe_dump(recipe), "poisoned")

    return make
