"""A hundred thousand inputs: a second run finds that there is nothing to do."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import soundfile

from manifests.recipes import decode_recipe
from pipeline.build import build, dry_run
from pipeline.recipe import BuildRecipe

NUM_INPUTS = 100_000 if os.environ.get("STEPWELL_SOAK") else 10_000
# Ingest and nothing else: a segmenter that finds nothing, no clips, no annotators.
RECIPE = """
name: ingest
segmenters: {vad: {kind: custom, target: "many_inputs_parts:Nothing"}}
clip_set: {turns: null}
"""
PARTS = """
from manifests.contracts import Resources


class Nothing:
    name, version, resources, models = "nothing", "1", Resources(), ()

    def fingerprint(self):
        return "0"

    def setup(self):
        pass

    def segment(self, channel):
        return []
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_second_run_over_many_inputs_finds_nothing_to_do(tmp_path, monkeypatch):
    (tmp_path / "many_inputs_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    audio = (0.2 * np.sin(np.arange(1600) * 0.2) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "one.wav", audio, 16_000)
    data = bytearray((tmp_path / "one.wav").read_bytes())
    for i in range(NUM_INPUTS):
        folder = tmp_path / "in" / f"{i // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        data[100:104] = i.to_bytes(4, "little")  # other bytes: another recording
        (folder / f"{i:06d}.wav").write_bytes(data)
    recipe, out = decode_recipe(BuildRecipe, RECIPE, "ingest"), str(tmp_path / "corpus")
    began = time.monotonic()
    first = build([str(tmp_path / "in")], out, recipe)
    first_s, began = time.monotonic() - began, time.monotonic()
    again = build([str(tmp_path / "in")], out, recipe)
    second_s = time.monotonic() - began
    print(f"{NUM_INPUTS} inputs: first run {first_s:.1f} s, second run {second_s:.1f} s")
    assert (first.num_inputs, first.num_recordings, first.num_units) == (NUM_INPUTS, NUM_INPUTS, NUM_INPUTS // 1000)
    assert (again.run_id, again.snapshot, again.num_inputs) == (None, first.snapshot, NUM_INPUTS)
    assert dry_run([str(tmp_path / "in")], out, recipe).num_new_inputs == 0
