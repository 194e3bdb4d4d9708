"""The benchmark of the trainer does on both sides what it says, in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speech_pack import read_clips, write_speech_pack
from benchmarks.trainer_speed import (
    Measured,
    Setting,
    ours_full,
    ours_ragged,
    padding,
    report,
    theirs_full,
    theirs_ragged,
    waiting,
)

SMALL = Setting("micro", tokens=512, full_length=128, full_steps=2, steps=2, compiles=False)


@pytest.fixture(scope="module")
def packs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[str, str]]:
    """(pack, tokenizer) of twenty clips of read speech, with and without audio."""
    clips = read_clips(["read"], 20, shared / "speech")
    folder = tmp_path_factory.mktemp("speech")
    return {audio: write_speech_pack(f"{folder}/{audio}", clips, with_audio=audio) for audio in (False, True)}


@pytest.mark.slow
def test_both_sides_count_the_targets_of_full_rows(packs: dict[bool, tuple[str, str]]) -> None:
    for side in (ours_full, theirs_full):
        found = side(SMALL, packs[False][1])
        assert (found.targets, found.tokens, found.positions) == (2 * 4 * 127, 2 * 512, 2 * 512)
        assert found.cpu_s > 0


def test_ragged_documents_are_padded_there_and_packed_here(packs: dict[bool, tuple[str, str]]) -> None:
    ours, theirs = (side(SMALL, *packs[False]) for side in (ours_ragged, theirs_ragged))
    assert ours.positions == 2 * SMALL.tokens
    for found in (ours, theirs):
        assert 0 < found.targets < found.tokens <= found.positions
    # Of the same documents the same share is target: prompts are not.
    assert theirs.targets / theirs.tokens == pytest.approx(ours.targets / ours.tokens, abs=0.15)


def test_audio_is_waited_for_and_long_sequences_are_filled(packs: dict[bool, tuple[str, str]]) -> None:
    assert waiting(SMALL, *packs[True]).waited_s > 0
    assert padding(2048, 8, "micro", *packs[True]) < 0.1


def test_the_report_holds_ours_beside_theirs() -> None:
    found = {"stepwell": Measured(2.0, 4.0, 600, 900, 1000, 0.02), "transformers": Measured(3.0, 5.0, 600, 900, 1200)}
    lines = report("ragged", found)
    assert "| stepwell | 300 | 150 | 450 | 10.00% | 0.50% |" in lines
    assert "| transformers | 200 | 120 | 300 | 25.00% | - |" in lines
    assert "stepwell / transformers, targets a CPU second: 1.50 (limit 1.30)" in lines
