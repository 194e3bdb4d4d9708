from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from manifests.errors import MismatchError, RequestError, WorkError
from manifests.recipes import resolved
from training import checkpoint
from training.journal import read_rows
from training.ranks import ALONE, Ranks
from training.recipe import TrainingRecipe
from training.run import train
from training.run_folder import RunFolder
from training.spikes import Action, SpikeRecipe
from training.trainer import CLOCK_COLUMNS, StageTrainer

# Real models or whole runs: seconds each, so left out of `make check`.
pytestmark = pytest.mark.slow


def steady_rows(run: str) -> list[dict[str, Any]]:
    """Metrics without what the clock decides."""
    return [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in read_rows(run)]


def tensors(path: str) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint."""
    from torch.distributed.checkpoint import filesystem, state_dict_loader

    weights = os.path.join(path, checkpoint.WEIGHTS)
    held = filesystem.FileSystemReader(weights).read_metadata().state_dict_metadata
    found = {key: torch.zeros(entry.size, dtype=entry.properties.dtype) for key, entry in held.items()}
    state_dict_loader.load(found, checkpoint_id=weights, no_dist=True)
    return found


def assert_same_run(left: str, right: str) -> None:
    """The same metrics, and every weight and moment of the newest checkpoint the same bit for bit."""
    assert steady_rows(left) == steady_rows(right)
    newest = [os.path.join(run, checkpoint.FOLDER, checkpoint.complete(run)[-1]) for run in (left, right)]
    ours, theirs = (tensors(path) for path in newest)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key
    evaluations = [json.loads((Path(run) / "evaluation.json").read_text()) for run in (left, right)]
    assert evaluations[0] == evaluations[1]


@pytest.fixture(scope="module")
def unbroken(chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = str(tmp_path_factory.mktemp("unbroken") / "run")
    train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, run)
    return run


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the run die after so many optimiser steps of this process."""
    done, whole = 0, StageTrainer.train_step

    def dying(self: StageTrainer, examples: Any) -> dict[str, Any]:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return whole(self, examples)

    monkeypatch.setattr(StageTrainer, "train_step", dying)


# 6 steps a stage, a checkpoint every 2: inside each stage, behind a checkpoint and on one, and at a stage's first step.
@pytest.mark.parametrize("steps", [3, 6, 7, 9, 14, 21])
def test_a_run_that_dies_and_resumes_is_the_unbroken_run(
    steps: int, unbroken: str, chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")
    with monkeypatch.context() as patched:
        stop_after(steps, patched)
        with pytest.raises(KeyboardInterrupt):
            train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, run)
    torch.manual_seed(steps)  # whatever the process did in between must not matter
    assert train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, run, resume=True).is_finished
    assert_same_run(run, unbroken)


def test_a_run_may_be_resumed_twice_and_stage_by_stage(
    unbroken: str, chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    for place, stage in enumerate(demo_recipe.stages):
        result = train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, run, until=stage.name, resume=place > 0)
        assert (result.steps, result.is_finished) == (6, place == 3)
    assert_same_run(run, unbroken)


def test_a_killed_process_leaves_a_run_that_resumes(
    unbroken: str, chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(resolved(demo_recipe)))
    arguments = ["run", "--recipe", "recipe.yaml", "--pack", chord_pack.pack, "--tokenizer", chord_pack.tokenizer, "--run", "run"]
    program = f"from training.cli import app; app({arguments!r})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(read_rows(str(run)))) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.complete(str(run)), "killed before the first checkpoint; the test says nothing"
    train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True)
    assert_same_run(str(run), unbroken)


def test_a_finished_run_is_left_alone(
    unbroken: str, chord_pack: Any, demo_recipe: TrainingRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    before = steady_rows(unbroken)
    for resume in (False, True):
        result = train(demo_recipe, chord_pack.pack, chord_pack.tokenizer, unbroken, resume=resume)
        assert result.is_finished
        assert result.steps == 0
        assert "nothing to do" in capsys.readouterr().err
    assert steady_rows(unbroken) == before


def test_the_run_says_what_it_did(unbroken: str) -> None:
    summary = json.loads((Path(unbroken) / "summary.json").read_text())
    assert [(row["name"], row["steps"]) for row in summary["stages"]] == [
        ("encoder_ctc", 6), ("decoder_text", 6), ("align", 6), ("tts", 6),
    ]  # fmt: skip
    assert summary["finished"] is True
    assert all(row["last_loss"] < row["first_loss"] for row in summary["stages"] if row["name"] != "align")
    evaluation = json.loads((Path(unbroken) / "evaluation.json").read_text())
    assert (
        evaluation["swap_rise"]
        == summary["swap_rise"]
        == pytest.approx(evaluation["swapped_loss"] / evaluation["align_loss"] - 1)
    )
    rows = steady_rows(unbroken)
    assert [row["global_step"] for row in rows] == list(range(1, 25))
    spoken = [row for row in rows if row["stage"] == "tts"]
    assert all(
        {"loss_text", "loss_audio_code", "loss_special", "lr_adaptor", "grad_norm", "tokens"} <= row.keys() for row in spoken
    )
    assert any(name.startswith("events.out") for name in os.listdir(Path(unbroken) / "tensorboard"))


def test_requests_that_cannot_be_met_are_refused_and_leave_nothing(
    unbroken: str, chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, begun = str(tmp_path / "fresh"), str(tmp_path / "begun")
    pack, tokenizer = chord_pack.pack, chord_pack.tokenizer
    with pytest.raises(RequestError, match="no checkpoint to resume from"):
        train(demo_recipe, pack, tokenizer, fresh, resume=True)
    with pytest.raises(RequestError, match="not in the recipe; its stages are encoder_ctc"):
        train(demo_recipe, pack, tokenizer, fresh, until="sft")
    with pytest.raises(RequestError, match="no pack"):
        train(demo_recipe, tokenizer, tokenizer, fresh)
    assert not os.path.exists(fresh)
    with monkeypatch.context() as patched:
        stop_after(3, patched)
        with pytest.raises(KeyboardInterrupt):
            train(demo_recipe, pack, tokenizer, begun)
    with pytest.raises(RequestError, match="add --resume"):
        train(demo_recipe, pack, tokenizer, begun)


def test_a_folder_that_cannot_be_written_is_refused(
    chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    pack, tokenizer = chord_pack.pack, chord_pack.tokenizer
    for run, reason in (("file", "File exists"), ("file/run", "Not a directory")):
        with pytest.raises(RequestError, match=f"run '{run}' cannot be written: {reason}; choose another --run"):
            train(demo_recipe, pack, tokenizer, run)
    for run in ("memory://run", f"file://{tmp_path}/run"):
        with pytest.raises(RequestError, match=r"is a URI.*give --run a local folder"):
            train(demo_recipe, pack, tokenizer, run)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_recipe_or_pack_or_tokenizer_is_a_mismatch(
    unbroken: str, chord_pack: Any, real_pack: Any, demo_recipe: TrainingRecipe
) -> None:
    other = demo_recipe.model_copy(update={"seed": 4})
    with pytest.raises(MismatchError, match="recipe_digest"):
        train(other, chord_pack.pack, chord_pack.tokenizer, unbroken, resume=True)
    with pytest.raises(MismatchError, match="tokenizer_id"):
        train(demo_recipe, real_pack.pack, real_pack.tokenizer, unbroken, resume=True)
    with pytest.raises(MismatchError, match="give the tokenizer it was packed with"):
        train(demo_recipe, real_pack.pack, chord_pack.tokenizer, unbroken, resume=True)


def test_a_pack_of_another_codec_is_a_mismatch(make_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path) -> None:
    made = make_pack({"train": []}, codec_fingerprint="another")
    with pytest.raises(MismatchError, match="codec_fingerprint another"):
        train(demo_recipe, made.pack, made.tokenizer, str(tmp_path / "run"))


def test_a_loss_that_is_no_number_stops_the_run_before_it_moves_a_weight(
    chord_pack: Any, demo_recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = str(tmp_path / "run"), []
    whole = StageTrainer.train_step

    def poisoned(self: StageTrainer, examples: Any) -> dict[str, Any]:
        if self.step == 3:
            with torch.no_grad():
                self.model.encoder.conv1.weight[0, 0, 0] = float("nan")
            seen.extend(p.detach().clone() for p in self.trained.values())
            with pytest.raises(WorkError) as told:
                whole(self, examples)
            for before, after in zip(seen, self.trained.values(), strict=True):
                assert torch.equal(before, after.detach()) or torch.isnan(before).any()
            raise told.value
        return whole(self, examples)

    monkeypatch.setattr(StageTrainer, "train_step", poisoned)
    stopping = demo_recipe.model_copy(update={"spikes": SpikeRecipe(action=Action.STOP)})
    told = (
        r"^stage 'encoder_ctc' step 4: loss is nan; it must be finite; none of its 4 documents stands out\. Nothing was updated"
    )
    with pytest.raises(WorkError, match=told):
        train(stopping, chord_pack.pack, chord_pack.tokenizer, run)
    assert seen
    assert [row["step"] for row in steady_rows(run)] == [1, 2, 3]


def test_old_checkpoints_go_and_every_stage_keeps_its_last(unbroken: str) -> None:
    assert checkpoint.complete(unbroken) == [
        f"{number:02d}-{stage}-{step:07d}"
        for number, stage in enumerate(["encoder_ctc", "decoder_text", "align", "tts"])
        for step in (2, 4, 6)
    ]
    newest = checkpoint.load_state(os.path.join(unbroken, checkpoint.FOLDER, checkpoint.complete(unbroken)[-1]))
    assert (newest.parent, newest.global_step, newest.data["packer"]["number"]) == ("03-tts-0000004", 24, 6 * 4)
    frozen = tensors(os.path.join(unbroken, checkpoint.FOLDER, "02-align-0000006"))
    assert {key.split(".")[2] for key in frozen if key.startswith("policy.optimizer.")} == {"adapter"}


def test_a_draft_of_a_checkpoint_is_never_taken_for_one(unbroken: str, tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.FOLDER
    (folder / ".00-encoder_ctc-0000002.a1b2c3").mkdir(parents=True)
    (folder / "00-encoder_ctc-0000004").mkdir()
    assert checkpoint.complete(str(tmp_path)) == []


@dataclass(frozen=True)
class ThreadRanks(Ranks):
    """Threads of one process in the place of ranks."""

    said: dict[int, Any] = field(default_factory=dict)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def gather(self, value: Any) -> list[Any]:
        self.meeting.wait(10)
        self.said[self.rank] = value
        self.meeting.wait(10)
        return [self.said[rank] for rank in range(self.world)]


def test_ranks_that_see_different_folders_are_told_so(tmp_path: Path) -> None:
    """Two folders stand for those of two machines: a mark that the first rank leaves is not in the other's."""
    folders = [RunFolder(str(tmp_path / name)) for name in ("one", "other")]
    for folder in folders:
        os.makedirs(folder.path)
    first = ThreadRanks(0, 2)
    with ThreadPoolExecutor(2) as pool:
        ranks = [first, replace(first, rank=1)]
        calls = [pool.submit(folder.check_shared, own) for folder, own in zip(folders, ranks, strict=True)]
        for call in calls:
            with pytest.raises(RequestError, match="another folder on rank 1 than on the first"):
                call.result()
    folders[0].check_shared(ALONE)
    assert os.listdir(folders[0].path) == []
