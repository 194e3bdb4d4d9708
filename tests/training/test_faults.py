from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.errors import MismatchError, WorkError
from manifests.packs import Pack
from manifests.recipes import resolved
from tests.training.launched import Launched
from training import checkpoint
from training.journal import read_rows
from training.recipe import TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS

# Whole runs, some in processes of their own: seconds each, so left out of `make check`.
pytestmark = pytest.mark.slow

# The command, in processes of which those of some ranks have a disk that takes no more than so many bytes a file from the second
# checkpoint on.
FULL = """
import os, resource, signal, sys
import stepwell, training.saver as saver
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
whole, most, full = saver.Saver.save, int(sys.argv.pop(1)), sys.argv.pop(1)
def save(self, *args):
    self.wait()
    if self.newest is not None and os.environ.get("RANK", "0") in full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    whole(self, *args)
saver.Saver.save = save
stepwell.main()
"""
# The command, in a process without root's right to write where nobody may, whose folder of checkpoints becomes read-only.
READ_ONLY = """
import os, sys
import stepwell, training.saver as saver
whole = saver.Saver.save
def save(self, *args):
    self.wait()
    if self.newest is not None:
        os.chmod(os.path.join(self.run_path, "checkpoints"), 0o555)
    whole(self, *args)
saver.Saver.save = save
stepwell.main()
"""


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., Any]) -> TrainingRecipe:
    """One stage of six steps with a checkpoint every second."""
    return make_recipe([{**curriculum_of(6)[3], "tasks": {"asr": 1, "tts": 3}}], checkpoint_every=2)


@pytest.fixture(scope="module")
def unbroken(chord_pack: Any, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = str(tmp_path_factory.mktemp("unbroken") / "run")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, run)
    return run


def curve(run: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCK_COLUMNS} for row in read_rows(run)]


def files(run: Path) -> list[str]:
    """Of the run's folder but the board: everything that ends as a draft does."""
    return [str(path.relative_to(run)) for path in run.rglob("*") if ".draft" in path.name or path.name.startswith(".0")]


def command(recipe: TrainingRecipe, pack: Any, folder: Path) -> list[str]:
    """`stepwell train run` in a folder, but for the program's name."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved(recipe)))
    inputs = ["--recipe", str(folder / "recipe.yaml"), "--pack", pack.pack, "--tokenizer", pack.tokenizer]
    return ["train", "run", *inputs, "--run", str(folder / "run")]


def fails(before: list[str], recipe: TrainingRecipe, pack: Any, folder: Path) -> str:
    """Runs the command in a process that comes to grief; its one line of error."""
    ended = subprocess.run([*before, *command(recipe, pack, folder)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    return line


# Of what a checkpoint takes: the tensors of this model are megabytes, state.json is a few kilobytes.
@pytest.mark.parametrize("num_bytes", [0, 100, 50_000])
def test_a_full_disk_leaves_the_last_good_checkpoint(
    num_bytes: int, unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    line = fails([sys.executable, "-c", FULL, str(num_bytes), "0"], recipe, chord_pack, tmp_path)
    assert f"checkpoint '00-tts-0000004' of run {str(run)!r} cannot be written (File too large)" in line
    assert "the last good one is 00-tts-0000002: free or mend the disk and go on with --resume" in line
    assert checkpoint.complete(str(run)) == ["00-tts-0000002"]
    assert files(run) == []
    assert train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True).is_finished
    assert curve(str(run)) == curve(unbroken)


# The first rank writes state.json and the file that says what lies where, the second its tensors alone.
@pytest.mark.parametrize(("num_bytes", "full"), [(0, "01"), (100, "01"), (50_000, "01"), (100, "1")])
def test_a_disk_that_is_full_for_some_ranks_is_told_as_for_one_process(
    num_bytes: int, full: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = Launched(["-c", FULL, str(num_bytes), full, *command(recipe, chord_pack, tmp_path)], 2).ended(120.0)
    assert [code for code, _ in ended] == [1, 1]
    (line,) = (line for _, err in ended for line in err.splitlines() if "error" in line.lower())
    assert f"checkpoint '00-tts-0000004' of run {str(run)!r} cannot be written (File too large)" in line
    assert line.endswith("the last good one is 00-tts-0000002: free or mend the disk and go on with --resume")
    assert checkpoint.complete(str(run)) == ["00-tts-0000002"]
    assert files(run) == []


def test_a_folder_that_becomes_read_only_leaves_the_last_good_checkpoint(
    unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run, before = tmp_path / "run", [sys.executable, "-c", READ_ONLY]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root writes in read-only folders, and setpriv (util-linux) is not here to take that right away")
        before = ["setpriv", "--bounding-set=-dac_override", *before]
    line = fails(before, recipe, chord_pack, tmp_path)
    os.chmod(run / checkpoint.FOLDER, 0o755)
    assert "checkpoint '00-tts-0000004'" in line
    assert "cannot be written (Permission denied); the last good one is 00-tts-0000002" in line
    assert checkpoint.complete(str(run)) == ["00-tts-0000002"]
    assert train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True).is_finished
    assert curve(str(run)) == curve(unbroken)


def spoil(shard: Path, how: str) -> None:
    """Damage the shard from its middle on, or take it away."""
    data = shard.read_bytes()
    half = len(data) // 2
    if how == "missing":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(data[:half])
    else:
        shard.write_bytes(data[:half] + b"\xff" * (len(data) - half))


@pytest.mark.parametrize("how", ["missing", "cut", "overwritten"])
def test_a_shard_that_goes_in_the_midst_of_an_epoch_is_named(
    how: str, unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, run, saves = tmp_path / "pack", str(tmp_path / "run"), checkpoint.save
    shutil.copytree(Pack.open(chord_pack.pack).store.uri.removeprefix("file://"), pack)
    (shard,) = pack.glob("shards/train-*.tar")
    whole, forgetful = (
        shard.read_bytes(),
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"cached_audio_bytes": 1})}),
    )

    def spoiling(*args: Any) -> str:
        if not checkpoint.complete(run):
            spoil(shard, how)
        return saves(*args)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", spoiling)
        with pytest.raises(
            WorkError, match=r"^document 'd\d\d' in shard 'train-000000.tar' of pack .* cannot be read \(.*; bring"
        ):
            train(forgetful, str(pack), chord_pack.tokenizer, run)
    # Steps are read ahead: those that were there already are still trained on.
    assert checkpoint.complete(run) in (["00-tts-0000002"], ["00-tts-0000002", "00-tts-0000004"])
    assert files(Path(run)) == []
    shard.write_bytes(whole)
    assert train(forgetful, str(pack), chord_pack.tokenizer, run, resume=True).is_finished
    assert curve(run) == curve(unbroken)


@pytest.mark.parametrize("name", ["state.json", "weights/.metadata", "weights/__0_0.distcp"])
def test_a_checkpoint_that_is_damaged_is_named(
    name: str, unbroken: str, chord_pack: Any, recipe: TrainingRecipe, tmp_path: Path
) -> None:
    run = shutil.copytree(unbroken, tmp_path / "run")
    (run / "summary.json").unlink()  # of an unfinished run
    shutil.rmtree(run / checkpoint.FOLDER / "00-tts-0000006")
    damaged = run / checkpoint.FOLDER / "00-tts-0000004"
    (damaged / name).write_bytes((damaged / name).read_bytes()[:100])
    with pytest.raises(
        WorkError, match=r"^checkpoint '.*00-tts-0000004' cannot be read \(.*; bring it back whole, or take it away"
    ):
        train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True)
    shutil.rmtree(damaged)
    assert train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True).is_finished
    assert curve(str(run)) == curve(unbroken)


def test_a_checkpoint_of_another_model_or_recipe_is_refused(chord_pack: Any, recipe: TrainingRecipe, unbroken: str) -> None:
    before = curve(unbroken)
    for changed in ({"model": "tiny"}, {"seed": 5}, {"checkpoint_every": 3}):
        with pytest.raises(MismatchError, match="recipe_digest"):
            train(recipe.model_copy(update=changed), chord_pack.pack, chord_pack.tokenizer, unbroken, resume=True)
    assert curve(unbroken) == before
