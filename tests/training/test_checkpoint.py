from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import filesystem

from manifests.errors import WorkError
from training import checkpoint
from training.checkpoint import CheckpointState, Identity, Progress
from training.device import Arithmetic
from training.ranks import ALONE
from training.recipe import TrainingRecipe
from training.saver import Saver
from training.tensors import TensorCopies, run_tensors, still_names

IDENTITY = Identity("recipe", "tokenizer", "vocabulary", "codec", "pack", "")
ARITHMETIC = Arithmetic("2.8", "CPU", "fp32", 1, False, False, 1)


@dataclass
class SmallPart:
    """Two layers, of which the first is frozen, and what trains the second."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    @staticmethod
    def new(seed: int) -> SmallPart:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
        model[0].requires_grad_(False)
        return SmallPart(model, torch.optim.AdamW(model[1].parameters(), lr=0.1, fused=True))

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(4, 6)).square().mean().backward()
        self.optimizer.step()


def progress(step: int) -> Progress:
    losses = {"first_loss": 3.0, "last_loss": 1.5, "stage_wall_s": 2.0, "stage_stall_s": 0.5}
    return Progress(
        stage_number=0, stage="main", step=step, global_step=step, data={"position": 4 * step}, watch={}, wall={}, **losses
    )


def state(step: int = 2) -> CheckpointState:
    of_run: dict[str, Any] = {"parent": None, "finished_stages": [], "inexact_resumes": []}
    return CheckpointState(**vars(progress(step)), identity=IDENTITY, arithmetic=ARITHMETIC, **of_run)


@pytest.fixture
def parts() -> dict[str, SmallPart]:
    made = {name: SmallPart.new(seed) for seed, name in enumerate(("policy", "critic"))}
    for part in made.values():
        part.step()
    return made


def saved(run: Path, parts: dict[str, SmallPart]) -> str:
    checkpoint.save(str(run), run_tensors(parts, ALONE), state())
    return checkpoint.path_of(str(run), "00-main-0000002")


def test_named_models_and_optimizers_come_back_and_so_does_chance(parts: dict[str, SmallPart], tmp_path: Path) -> None:
    path = saved(tmp_path, parts)
    expected = {name: tensor.clone() for name, tensor in run_tensors(parts, ALONE).items()}
    drawn = torch.rand(3)
    held = filesystem.FileSystemReader(os.path.join(path, checkpoint.WEIGHTS)).read_metadata().state_dict_metadata
    assert held.keys() == expected.keys()
    assert {"policy.model.0.weight", "critic.model.1.bias", "critic.optimizer.1.weight.exp_avg_sq", "rng.0.cpu"} <= held.keys()
    assert not any(name.startswith("policy.optimizer.0") for name in held)  # frozen
    others = {name: SmallPart.new(seed) for seed, name in enumerate(("critic", "policy"))}
    checkpoint.load_parts(path, others)
    assert torch.equal(torch.rand(3), drawn)
    checkpoint.load_parts(path, others)
    found = run_tensors(others, ALONE)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert checkpoint.load_state(path).data == {"position": 8}


def test_one_model_of_several_is_read_by_its_name(parts: dict[str, SmallPart], tmp_path: Path) -> None:
    path, critic = saved(tmp_path, parts), SmallPart.new(7)
    checkpoint.load_weights(path, critic.model, "critic")
    assert all(torch.equal(a, b) for a, b in zip(critic.model.parameters(), parts["critic"].model.parameters(), strict=True))
    with pytest.raises(WorkError, match=r"cannot be read .*judge"):
        checkpoint.load_weights(path, critic.model, "judge")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_flipped_bit_in_any_file_is_noticed(name: str, parts: dict[str, SmallPart], tmp_path: Path) -> None:
    path = saved(tmp_path, parts)
    file = Path(path) / checkpoint.WEIGHTS / name
    whole = file.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        flip(file, place)
        with pytest.raises(
            WorkError, match=rf"^checkpoint '{path}' cannot be read \(ValueError: {name} has digest .*; bring it back whole"
        ):
            checkpoint.load_parts(path, parts)
        file.write_bytes(whole)
    checkpoint.load_parts(path, parts)
    file.unlink()
    with pytest.raises(WorkError, match=rf"cannot be read .*{name}"):
        checkpoint.load_weights(path, parts["policy"].model)


def test_a_changed_digit_in_the_state_is_noticed(parts: dict[str, SmallPart], tmp_path: Path) -> None:
    path = saved(tmp_path, parts)
    file = Path(path) / checkpoint.STATE
    file.write_text(file.read_text().replace('"position":8', '"position":9'))
    with pytest.raises(WorkError, match=r"state\.json is not as it was written"):
        checkpoint.load_state(path)


def test_copies_stay_as_they_were_taken_and_use_their_memory_again(parts: dict[str, SmallPart]) -> None:
    copies, still = TensorCopies(), still_names(parts)
    assert still == {f"{part}.model.0.{name}" for part in parts for name in ("weight", "bias")}
    own = run_tensors(parts, ALONE)
    first = copies.take(own, still)
    before = {name: tensor.clone() for name, tensor in own.items()}
    for part in parts.values():
        part.step()
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert not torch.equal(own["policy.model.1.weight"], before["policy.model.1.weight"])
    second = copies.take(run_tensors(parts, ALONE), still)
    for name in own:
        assert (second[name].data_ptr() == own[name].data_ptr()) == (name in still)  # frozen weights are not copied
        assert second[name].data_ptr() == first[name].data_ptr()


class SlowDisk:
    """A disk that takes what is written when it is let, or refuses it then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.error = threading.Event(), None
        whole = checkpoint._sync

        def sync(folder: str) -> None:
            assert self.go.wait(60)
            if self.error is not None:
                raise self.error
            whole(folder)

        monkeypatch.setattr(checkpoint, "_sync", sync)

    error: OSError | None

    def refuse(self) -> None:
        self.error = OSError(28, os.strerror(28))
        self.go.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.go.set()


@pytest.fixture
def saver(make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path: Path) -> Saver:
    recipe = make_recipe([{**curriculum_of(8)[0], "name": "main"}], keep_checkpoints=2)
    return Saver(str(tmp_path / "run"), recipe, IDENTITY, ARITHMETIC, ALONE)


def drafts(saver: Saver) -> list[str]:
    return [name for name in os.listdir(os.path.join(saver.run_path, checkpoint.FOLDER)) if name.startswith(".")]


def test_training_goes_on_while_a_checkpoint_of_before_is_written(
    saver: Saver, parts: dict[str, SmallPart], disk: SlowDisk
) -> None:
    expected = {name: tensor.clone() for name, tensor in run_tensors(parts, ALONE).items()}
    with saver:
        saver.save(parts, progress(2))
        parts["policy"].step()
        saver.look()
        assert checkpoint.complete(saver.run_path) == []
        assert saver.newest is None
        disk.go.set()
        saver.save(parts, progress(4))  # waits for the first
        assert checkpoint.complete(saver.run_path)[0] == "00-main-0000002"
        assert saver.newest == "00-main-0000002"
    assert saver.newest == "00-main-0000004"
    assert drafts(saver) == []
    assert checkpoint.load_state(checkpoint.path_of(saver.run_path, "00-main-0000004")).parent == "00-main-0000002"
    checkpoint.load_parts(checkpoint.path_of(saver.run_path, "00-main-0000002"), parts)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in run_tensors(parts, ALONE).items())


REFUSED = r"^checkpoint '00-main-0000002' of run .* cannot be written \(No space left on device\); there is none before it: free"


def within(saver: Saver, *verbs: Callable[[], object]) -> None:
    """Do so much within the saver's block."""
    with saver:
        for verb in verbs:
            verb()


def fail(failure: BaseException) -> None:
    raise failure


@pytest.mark.parametrize("verb", ["look", "save", "wait", "end"])
def test_what_fails_in_the_background_is_raised_by_what_comes_next(
    verb: str, saver: Saver, parts: dict[str, SmallPart], disk: SlowDisk
) -> None:
    def ended() -> None:
        assert saver._under_way is not None
        assert saver._under_way.exception(60) is not None

    verbs: dict[str, Callable[[], object]] = {
        "look": saver.look, "save": lambda: saver.save(parts, progress(4)), "wait": saver.wait, "end": lambda: None,
    }  # fmt: skip
    behind: list[str] = []
    with pytest.raises(WorkError, match=REFUSED):
        within(saver, lambda: saver.save(parts, progress(2)), disk.refuse, ended, verbs[verb], lambda: behind.append(verb))
    assert behind == (["end"] if verb == "end" else [])
    assert checkpoint.complete(saver.run_path) == []
    assert drafts(saver) == []


def test_an_interrupted_run_ends_its_checkpoint(saver: Saver, parts: dict[str, SmallPart], disk: SlowDisk) -> None:
    later = threading.Timer(0.2, disk.go.set)
    with pytest.raises(KeyboardInterrupt):
        within(saver, lambda: saver.save(parts, progress(2)), later.start, lambda: fail(KeyboardInterrupt()))
    assert checkpoint.complete(saver.run_path) == ["00-main-0000002"]
    checkpoint.load_parts(checkpoint.path_of(saver.run_path, "00-main-0000002"), parts)


def test_of_two_failures_none_is_lost(
    saver: Saver, parts: dict[str, SmallPart], disk: SlowDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.refuse()
    with pytest.raises(WorkError, match="loss is nan"):
        within(saver, lambda: saver.save(parts, progress(2)), lambda: fail(WorkError("loss is nan")))
    assert "error: checkpoint '00-main-0000002' of run" in capsys.readouterr().err
    with pytest.raises(WorkError, match=REFUSED):  # the same disk, under metrics.jsonl
        within(saver, lambda: saver.save(parts, progress(2)), lambda: fail(OSError(28, os.strerror(28))))
