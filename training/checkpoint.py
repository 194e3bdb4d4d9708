"""Checkpoints: a distributed-checkpoint directory of tensors plus ``state.json`` of everything else.

    <run>/checkpoints/<stage number>-<stage>-<step>/
        weights/      torch.distributed.checkpoint; names are those of ``tensors``
        state.json    CheckpointState with the digest of every file; written last, before the whole directory gets its name

A directory is written under a draft name, made durable, then renamed: what has a checkpoint's name is whole.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from manifests.errors import MismatchError, WorkError
from manifests.ids import digest_json, new_attempt_id
from manifests.recipes import recipe_digest
from manifests.store import json_bytes
from training.device import Arithmetic
from training.evaluation_recipe import EvaluationRecipe
from training.ranks import ALONE, Ranks, is_loss
from training.recipe import Precision, TrainingRecipe
from training.spikes import SpikeRecipe
from training.tensors import POLICY, Part, check_files, read_model, read_parts, write_tensors

FORMAT_VERSION = 5
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
    start_digest: str  # Start.digest

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
    watch: dict[str, Any]  # SpikeWatch.state_dict
    wall: dict[str, float]  # WallTime.state_dict
    first_loss: float | None  # of the stage; None before the first step that was accepted
    last_loss: float
    stage_wall_s: float
    stage_stall_s: float  # of checkpoints

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
    inexact_resumes: list[dict[str, Any]]  # where the run went on otherwise than it began: global_step, and what differed
    files: dict[str, str] = field(default_factory=dict)  # digests of what is in weights/
    format_version: int = FORMAT_VERSION


def learned_digest(recipe: TrainingRecipe) -> str:
    """Digest of what a recipe learns: all of it but how that is computed, which ``Arithmetic`` records, and what is done about spikes
    and forgetting: a run that stops for them has to go on otherwise."""
    how = {"threads": 1, "precision": Precision.FP32, "recompute": False, "compile": False}
    return recipe_digest(recipe.model_copy(update={**how, "spikes": SpikeRecipe(), "evaluation": EvaluationRecipe()}))


def path_of(run_path: str, name: str) -> str:
    """Where a run's checkpoint of that name lies."""
    return os.path.join(run_path, FOLDER, name)


def save(run_path: str, tensors: Mapping[str, torch.Tensor], state: CheckpointState, ranks: Ranks = ALONE) -> None:
    """Publish a checkpoint of what all ranks hold. Every rank must call it; the first one gives it its name.

    Raises WorkError on every rank where it cannot be written on one: nothing of it is left then.
    """
    try:
        attempt = ranks.gather(new_attempt_id())[0]
        _write(path_of(run_path, f".{state.name}.{attempt}"), tensors, state, ranks)
    except (OSError, RuntimeError, ValueError) as error:
        if is_loss(error):
            raise RuntimeError(str(error)) from error  # the disk has nothing to do with it: as in any other collective
        left = f"the last good one is {state.parent}" if state.parent else "there is none before it"
        reason = getattr(error, "strerror", None) or error
        raise WorkError(
            f"checkpoint {state.name!r} of run {run_path!r} cannot be written ({reason}); {left}: free or mend the disk and go on with --resume"
        ) from error


def _write(draft: str, tensors: Mapping[str, torch.Tensor], state: CheckpointState, ranks: Ranks) -> None:
    try:
        ranks.agree(lambda: os.makedirs(draft, exist_ok=True))
        files = write_tensors(os.path.join(draft, WEIGHTS), tensors, ranks)
        ranks.agree(lambda: _publish(draft, replace(state, files=files)) if ranks.is_first else None)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # where it has not got its name


def _publish(draft: str, state: CheckpointState) -> None:
    if absent := sorted(name for name in state.files if not os.path.exists(os.path.join(draft, WEIGHTS, name))):
        raise ValueError(f"{absent[0]!r}, which another rank wrote, is not here: all ranks need one folder")
    value = asdict(state)
    with open(os.path.join(draft, STATE), "wb") as file:
        file.write(json_bytes({**value, "digest": digest_json(value)}))
    _sync(draft)
    folder = os.path.dirname(draft)
    os.rename(draft, os.path.join(folder, state.name))
    _sync_folder(folder)


def load_state(path: str) -> CheckpointState:
    """Everything but the tensors. Raises MismatchError for a format of another version, WorkError where it is damaged."""
    with _reading(path), open(os.path.join(path, STATE), encoding="utf-8") as file:
        value = dict(json.load(file))
    if value.get("format_version") != FORMAT_VERSION:
        raise MismatchError(
            f"checkpoint {path!r} has format {value.get('format_version')!r}; this version reads {FORMAT_VERSION}: choose another --run"
        )
    with _reading(path):
        if value.pop("digest") != digest_json(value):
            raise ValueError(f"{STATE} is not as it was written")
        known = {"identity": Identity(**value["identity"]), "arithmetic": Arithmetic(**value["arithmetic"])}
        return CheckpointState(**{**value, **known})


def load_weights(path: str, model: torch.nn.Module, part: str = POLICY) -> None:
    """The weights of one of the checkpoint's models, in place. Raises WorkError where they are damaged or of other shapes."""
    state, folder = load_state(path), os.path.join(path, WEIGHTS)
    with _reading(path):
        check_files(folder, state.files, ALONE)
        read_model(folder, part, model, ALONE)


def load_parts(path: str, parts: Mapping[str, Part], ranks: Ranks = ALONE) -> None:
    """Weights, optimizer moments and random states, in place. Every rank must call it; another number of them may have saved.

    Raises as ``load_weights``, on every rank.
    """
    state, folder = load_state(path), os.path.join(path, WEIGHTS)
    with _reading(path):
        check_files(folder, state.files, ranks)
        read_parts(folder, parts, ranks)


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
