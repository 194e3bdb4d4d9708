from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.checkpoints import trained as module
from tests.checkpoints.trained import trained


def test_who_comes_while_a_checkpoint_is_trained_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def train(folder: Path) -> None:
        begun.append(folder)
        time.sleep(0.3)
        (folder / "weights").write_text("whole")

    monkeypatch.setitem(module.TRAINERS, "slow", train)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(trained("slow", tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert len(found) == 3
    assert [(path / "weights").read_text() for path in set(found)] == ["whole"]


def test_a_training_that_is_stopped_leaves_nothing_and_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(module.TRAINERS, "slow", stops)
    with pytest.raises(KeyboardInterrupt):
        trained("slow", tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    monkeypatch.setitem(module.TRAINERS, "slow", lambda folder: (folder / "weights").write_text("whole"))
    assert (trained("slow", tmp_path) / "weights").read_text() == "whole"
