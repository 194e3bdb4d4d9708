from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from manifests.console import say
from training import follower
from training.follower import Notes, followed
from training.journal import METRICS
from training.recipe import TrainingRecipe


def test_notes_are_read_once_and_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run" / ".notes"
    read = Notes(str(path))
    written = pickle.loads(pickle.dumps(read))
    with written.written():
        say("before there is a folder")
        path.parent.mkdir()
        say("ein Fehler, größer als sonst")
        say("a path of no UTF-8: /run/\udcff")
        thread = threading.Thread(target=say, args=("said beside",))
        thread.start()
        thread.join()
        assert read.new_lines() == ["ein Fehler, größer als sonst", r"a path of no UTF-8: /run/\udcff", "said beside"]
        with path.open("ab") as file:
            file.write(b"cut off")
        assert read.new_lines() == []
        with path.open("ab") as file:
            file.write(b" and whole\n")
        assert read.new_lines() == ["cut off and whole"]
    say("behind it")
    assert read.new_lines() == []
    assert len(capfd.readouterr().err.splitlines()) == 5
    read.remove()
    read.remove()
    assert not path.exists()


def test_what_a_worker_writes_down_is_shown_where_it_was_asked_for(
    demo_recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.01)
    stage, rows = demo_recipe.stages[0], tmp_path / METRICS
    measured: dict[str, Any] = {"stage": stage.name, "step": stage.num_steps, "measured": ["asr"]}
    notes = Notes(str(tmp_path / ".notes"))
    with followed(demo_recipe, str(tmp_path), notes):
        rows.write_text("".join(json.dumps(row) + "\n" for row in [{**measured, "loss": 1.5}, measured]))
        (tmp_path / ".notes").write_text("step 1: loss 9 is far above the usual\n")
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("step 1: loss 9 is far above the usual") == 1
    assert f"train {stage.name}: {stage.num_steps}/{stage.num_steps} steps, loss 1.500" in lines
    assert not (tmp_path / ".notes").exists()
