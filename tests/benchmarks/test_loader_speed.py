"""The loaders that are compared give the same documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.loader_speed import LIMITS, LOADERS, compare, report, write_all
from benchmarks.speech_pack import read_clips


def test_loaders_give_what_the_clips_hold(shared: Path, tmp_path: Path) -> None:
    clips = read_clips(["read"], 5, shared / "speech")
    write_all(str(tmp_path), clips, with_audio=True)
    for loader in LOADERS.values():
        found = list(loader(str(tmp_path)))
        assert [text for text, _, _ in found] == [clip.text for clip in clips]
        assert [len(codes) for _, codes, _ in found] == [-(-len(clip.audio) // 640) for clip in clips]
        for (_, _, audio), clip in zip(found, clips, strict=True):
            assert audio is not None
            np.testing.assert_array_equal(audio, clip.audio)


def test_a_comparison_has_every_loader_and_material(shared: Path, tmp_path: Path) -> None:
    found = compare(read_clips(["read"], 5, shared / "speech"), 1, str(tmp_path))
    assert {material: list(rows) for material, rows in found.items()} == {key: list(LOADERS) for key in LIMITS}
    lines = report(found, 5)
    assert sum(line.startswith("|") for line in lines) == 2 + 2 * len(LOADERS)
    assert [line.split(":")[0] for line in lines[-2:]] == list(LIMITS)
