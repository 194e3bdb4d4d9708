"""A recording of hours takes the memory of one of ten minutes, and its windows are stitched without a seam."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from manifests.corpus import Corpus
from pipeline.shipped_speech import conversation_path

RATE_HZ = 16_000
RATIO = 1.5
# Diarization and pitch of five hours take a quarter of an hour: `make soak` has them.
IS_SOAK = bool(os.environ.get("STEPWELL_SOAK"))
LONG_MIN = 300 if IS_SOAK else 120  # as float32 in memory, two hours would be 440 MiB


def write_long(path: Path, minutes: int) -> None:
    """The shipped conversation again and again, each time at another level, so that no two minutes are the same."""
    audio, _ = soundfile.read(conversation_path(), dtype="float32")
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for turn in range(minutes * 60 // (len(audio) // RATE_HZ)):
            file.write(audio * np.float32(0.4 + 0.6 * ((turn * 7) % 13) / 13))


def peak_bytes(source: Path, out: Path, recipe: Path) -> int:
    """Largest resident memory of a process that builds the corpus."""
    command = [sys.executable, "-m", "stepwell", "corpus", "build", str(source), "--out", str(out), "--recipe", str(recipe)]
    process = subprocess.Popen([*command, "--engine", "inline"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return usage.ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.timeout(0 if IS_SOAK else 900)
def test_hours_take_the_memory_of_ten_minutes(light, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    vad = {"kind": "silero"}
    made = (
        light(segmenters={"vad": vad, "diarization": {"kind": "pyannote", "when": {"spans": "vad"}}}, clip_set={})
        if IS_SOAK
        else light(annotators={"signal": {"kind": "signal"}})
    )
    recipe.write_text(made.model_dump_json())
    peaks, clips = {}, {}
    for minutes in (10, LONG_MIN):
        source = tmp_path / f"{minutes}.wav"
        write_long(source, minutes)
        peaks[minutes] = peak_bytes(source, tmp_path / f"corpus-{minutes}", recipe)
        clips[minutes] = Corpus.open(str(tmp_path / f"corpus-{minutes}")).clips()
        source.unlink()
    print({minutes: f"{peak / 2**20:.0f} MiB" for minutes, peak in peaks.items()})
    assert peaks[LONG_MIN] <= RATIO * peaks[10]
    # The first ten minutes of both are the same audio: the same clips, wherever a window ends.
    until = 9 * 60 * RATE_HZ
    short, long = (
        [(c["start_sample"], c["end_sample"]) for c in clips[m].to_pylist() if c["end_sample"] < until] for m in (10, LONG_MIN)
    )
    assert IS_SOAK or short == long
    assert clips[LONG_MIN].num_rows > 0.8 * LONG_MIN / 10 * clips[10].num_rows
