"""Costs of the digits experiment hold all that was done, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.digits.__main__ import WAITING, Experiment
from benchmarks.digits.phases import Phases
from benchmarks.digits.recogniser import TAKES

BUSY = "import time; began = time.process_time()\nwhile time.process_time() < began + 0.3: pass"


def test_a_phase_that_fails_is_written_down(tmp_path: Path) -> None:
    phases = Phases(tmp_path / "costs.json")
    with pytest.raises(KeyboardInterrupt), phases.phase("codec"):
        raise KeyboardInterrupt
    (cost,) = Phases(tmp_path / "costs.json").costs
    assert (cost.phase, cost.is_finished, cost.title) == ("codec", False, "codec, cut off")


def test_a_phase_whose_result_is_there_adds_nothing_and_one_that_was_cut_off_adds(tmp_path: Path) -> None:
    phases, result = Phases(tmp_path / "costs.json"), tmp_path / "result"
    result.mkdir()  # half of it
    with pytest.raises(ValueError, match="no"), phases.phase("codec", result):
        raise ValueError("no")
    for _ in range(2):
        with phases.phase("codec", result):
            pass
    assert [cost.is_finished for cost in Phases(tmp_path / "costs.json").costs] == [False, True]
    result.rmdir()
    with phases.phase("codec", result):
        pass
    assert len(phases.costs) == 3


def test_the_recogniser_s_cpu_is_of_the_phase_that_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(tmp_path / "out", tmp_path, "digit_strings")
    monkeypatch.setattr("benchmarks.digits.__main__.module", lambda *words: [sys.executable, "-c", BUSY])
    with experiment.judge_in_training(), experiment.phases.phase("other"):
        pass
    other, waiting = experiment.phases.costs
    assert (other.phase, waiting.phase) == ("other", WAITING)
    assert other.cpu_s < 0.3 <= waiting.cpu_s
    (tmp_path / "out" / "recogniser").mkdir()
    (tmp_path / "out" / "recogniser" / TAKES).write_text("[]")
    with experiment.judge_in_training():
        pass
    assert len(experiment.phases.costs) == 2


def test_a_recogniser_that_fails_stops_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(tmp_path / "out", tmp_path, "digit_strings")
    monkeypatch.setattr("benchmarks.digits.__main__.module", lambda *words: [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(subprocess.CalledProcessError), experiment.judge_in_training():
        pass
    assert [cost.is_finished for cost in experiment.phases.costs] == [False]
