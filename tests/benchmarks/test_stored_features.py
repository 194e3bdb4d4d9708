from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from benchmarks.quality.material import Item
from benchmarks.quality.stored_features import examples_of, held_out, layers_of
from manifests.contracts import Audio
from pipeline.classifier_fit import Examples


def test_whoever_knows_the_group_knows_nothing_of_a_group_that_is_held_out() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 20)
    labels = np.repeat(np.array(["a", "b"])[random.integers(0, 2, 24)], 20)
    features = random.normal(0, 1, (24, 16))[groups] + random.normal(0, 0.1, (480, 16))
    examples = Examples(features, labels, groups.astype(str), np.full(16, 16))
    folds = [np.flatnonzero(groups % 4 == k) for k in range(4)]
    found = held_out(examples, folds, 0.9, fewest_items=10)
    assert found.hits(examples).mean() < 0.8
    assert not found.is_stated.any()
    known = Examples(np.column_stack([features, labels == "a"]), labels, examples.groups, np.full(17, 17))
    assert held_out(known, folds, 0.9, fewest_items=10).hits(known).mean() > 0.85


def test_layers_are_made_as_a_build_makes_them(conversation: Audio, tmp_path: Path) -> None:
    items = []
    for number, audio in enumerate((conversation[120_000:168_000], np.zeros(16_000, np.float32))):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, audio, 16_000)
        items.append(Item(str(path), {}))
    layers = layers_of(items, ("prosody", "signal", "rhythm", "style", "paralinguistics"))
    assert [table.num_rows for table in layers.values()] == [2] * 6
    assert layers["clip"]["speech_samples"][0].as_py() > 16_000
    assert [row["value"] for row in layers["paralinguistics"]["vocal_activity"].to_pylist()] == ["speech", "silence"]
    examples = examples_of(layers, ["prosody.pitch_hz", "rhythm"], np.array(["a", "b"]), np.array(["x", "y"]))
    assert examples.features.shape == (2, 3)
    assert examples.layer_sizes.tolist() == [1, 2, 2]
