"""Checkpoints: a distributed-checkpoint directory of tensors plus ``state.json`` of everything else.

    <run>/checkpoints/<stage number>-<stage>-<step>/
        weights/      torch.distributed.checkpoint: model.<name>, optimizer.<name>.<moment>, rng.torch
        state.json    CheckpointState; written last, before the whole directory gets its name

A directory is written under a draft name, made durable, then renamed: what has a checkpoint's name is whole.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from manifests.errors import MismatchError, WorkError
from manifests.ids import new_attempt_id
from manifests.recipes import recipe_digest
from manifests.store import json_bytes
from training.device import Arithmetic
from training.model import StepAudio2
from training.recipe import TrainingRecipe
from training.trainer import StageTrainer

FORMAT_VERSION = 3
FOLDER = "checkpoints"
STATE = "state.json"
WEIGHTS = "weights"
NAME = re.compile(r"^(\d{2})-([a-z][a-z0-9_]*)-(\d{7})$")


@dataclass(frozen=True)
class Identity:
    """What a run rests on; a checkpoint goes on only under the same."""

    recipe_digest: str  # learned_digest
    tokenizer_id: str
    vocabulary_hash: str
    codec_fingerprint: str
    pack_id: str

    def check(self, other: Identity, what: str) -> None:
        """Raises MismatchError naming the first difference."""
        for entry in fields(self):
            here, there = getattr(self, entry.name), getattr(other, entry.name)
            if here != there:
                raise MismatchError(
                    f"{what} has {entry.name} {there}, this run {here}; they must be equal: use what the run began with, or another --run"
                )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    stage_number: int  # from 0
    stage: str
    step: int  # steps of the stage that are done
    global_step: int  # steps of the run that are done
    data: dict[str, Any]  # StageData.state_dict
    first_loss: float  # of the stage
    last_loss: float
    stage_wall_s: float

    @property
    def name(self) -> str:
        """Of the checkpoint that is saved here."""
        return f"{self.stage_number:02d}-{self.stage}-{self.step:07d}"


@dataclass(frozen=True, kw_only=True)
class CheckpointState(Progress):
    """Everything of a checkpoint that is no tensor."""

    identity: Identity
    arithmetic: Arithmetic
    parent: str | None  # name of the checkpoint before this one in the run
    finished_stages: list[dict[str, Any]]  # rows of the run's summary
    format_version: int = FORMAT_VERSION


def path_of(run_path: str, name: str) -> str:
    """Where a run's checkpoint of that name lies."""
    return os.path.join(run_path, FOLDER, name)


def learned_digest(recipe: TrainingRecipe) -> str:
    """Digest of what a recipe learns: all of it but how that is computed, which ``Arithmetic`` records."""
    return recipe_digest(recipe.model_copy(update={"threads": 1, "recompute": False, "compile": False}))


def save(run_path: str, trainer: StageTrainer, state: CheckpointState) -> str:
    """Publish a checkpoint; returns its path. Raises WorkError where it cannot be written: nothing of it is left then."""
    final = path_of(run_path, state.name)
    draft = os.path.join(run_path, FOLDER, f".{state.name}.{new_attempt_id()}")
    try:
        os.makedirs(draft)
        with _plain_errors():
            state_dict_saver.save(_tensors(trainer), checkpoint_id=os.path.join(draft, WEIGHTS), no_dist=True)
        with open(os.path.join(draft, STATE), "wb") as file:
            file.write(json_bytes(asdict(state)))
        _sync(draft)
        os.rename(draft, final)
        _sync_folder(os.path.dirname(final))
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        left = f"the last good one is {state.parent}" if state.parent else "there is none before it"
        raise WorkError(
            f"checkpoint {state.name!r} of run {run_path!r} cannot be written ({error.strerror or error}); {left}: "
            "free or mend the disk and go on with --resume"
        ) from error
    return final


def load_state(path: str) -> CheckpointState:
    """Everything but the tensors. Raises MismatchError for a format of another version, WorkError where it is damaged."""
    with _reading(path), open(os.path.join(path, STATE), encoding="utf-8") as file:
        value = dict(json.load(file))
    if value.get("format_version") != FORMAT_VERSION:
        raise MismatchError(
            f"checkpoint {path!r} has format {value.get('format_version')!r}; this version reads {FORMAT_VERSION}: choose another --run"
        )
    with _reading(path):
        parts = {"identity": Identity(**value["identity"]), "arithmetic": Arithmetic(**value["arithmetic"])}
        return CheckpointState(**{**value, **parts})


def load_weights(path: str, model: StepAudio2) -> None:
    """The model's weights out of a checkpoint, in place. Raises WorkError where they are damaged or of other shapes."""
    _load({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, path)


def load_trainer(path: str, trainer: StageTrainer, step: int) -> None:
    """Weights, optimizer moments and the random state, in place; the trainer goes on after ``step`` steps.

    Raises as ``load_weights``.
    """
    load_weights(path, trainer.model)
    with _reading(path):
        held = filesystem.FileSystemReader(os.path.join(path, WEIGHTS)).read_metadata().state_dict_metadata
    rest: dict[str, Any] = {"rng.torch": torch.get_rng_state()}
    for name, parameter in trainer.trained.items():
        # Parameters that no example has reached yet (the adaptor in a stage of text) have no moments.
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            if (key := f"optimizer.{name}.{moment}") in held:
                rest[key] = torch.zeros(()) if moment == "step" else torch.zeros_like(parameter)
    _load(rest, path)
    torch.set_rng_state(rest.pop("rng.torch"))
    for key, tensor in rest.items():
        name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
        # The fused optimizer wants its step counter beside the parameter.
        trainer.optimizer.state[trainer.trained[name]][moment] = tensor.to(trainer.device)
    trainer.step = step


def complete(run_path: str) -> list[str]:
    """Names of the run's whole checkpoints, oldest first; drafts of killed runs do not count."""
    folder = os.path.join(run_path, FOLDER)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if NAME.match(name) and os.path.exists(os.path.join(folder, name, STATE)))


def drop_old(run_path: str, keep: int, last_steps: dict[str, int]) -> None:
    """Remove checkpoints and dead drafts: of each stage the last ``keep`` stay, and the one at its last step always."""
    folder = os.path.join(run_path, FOLDER)
    by_stage: dict[str, list[str]] = {}
    for name in complete(run_path):
        stage, step = NAME.match(name).group(2, 3)  # type: ignore[union-attr]  # complete() lists matching names only
        if int(step) != last_steps[stage]:
            by_stage.setdefault(stage, []).append(name)
    doomed = [name for names in by_stage.values() for name in names[:-keep]]
    doomed += [name for name in os.listdir(folder) if name.startswith(".")]
    for name in doomed:
        shutil.rmtree(os.path.join(folder, name))


def _load(tensors: dict[str, Any], path: str) -> None:
    with _reading(path), _plain_errors():
        state_dict_loader.load(tensors, checkpoint_id=os.path.join(path, WEIGHTS), no_dist=True)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Raises WorkError where a checkpoint, read in the block, is not whole."""
    try:
        yield
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError, KeyError) as error:
        raise WorkError(
            f"checkpoint {path!r} cannot be read ({type(error).__name__}: {error}); bring it back whole, "
            "or take it away to go on from the one before it"
        ) from error


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What torch.distributed.checkpoint wraps in an exception that no handler of Exception sees, as what it was."""
    try:
        with warnings.catch_warnings():
            # torch tells at every save and load that one process works by itself, which is meant here.
            warnings.simplefilter("ignore", UserWarning)
            yield
    except CheckpointException as error:
        found: BaseException | None = next(cause for cause, _ in error.failures.values())
        failure = found
        # A writer that fails while it closes says what it counted; the disk's own word lies behind.
        while found is not None and not isinstance(found, OSError | KeyboardInterrupt):
            found = found.__cause__ or found.__context__
        if isinstance(found, OSError | KeyboardInterrupt):
            raise found from error
        raise ValueError(" ".join(str(failure).split())) from error


def _tensors(trainer: StageTrainer) -> dict[str, Any]:
    tensors: dict[str, Any] = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    for name, parameter in trainer.trained.items():
        for moment, tensor in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{moment}"] = tensor
    return {**tensors, "rng.torch": torch.get_rng_state()}


def _sync(folder: str) -> None:
    """Everything below the folder to the disk, so that the rename that follows publishes whole files."""
    for base, _, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(base, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        _sync_folder(base)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
