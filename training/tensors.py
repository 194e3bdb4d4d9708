"""The tensors that a run goes on from: their names, copies that training does not move, and their files.

    <part>.model.<weight>   <part>.optimizer.<weight>.<moment>   rng.<rank>.<device>

``part`` is what a model does in the run: pretraining has ``policy`` alone. The files are those of
torch.distributed.checkpoint: with several ranks each writes its own, and any number of ranks reads them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from training.digests import file_digest
from training.ranks import Ranks
from training.sharding import own, reshard

POLICY = "policy"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's
# torch tells at every save and load that one process works by itself, which is meant here, and that its own writer uses an old kind
# of storage. Said once: filters belong to the whole process, and saves run in a thread.
for told in ("torch.distributed is disabled, unavailable or uninitialized", "TypedStorage is deprecated"):
    warnings.filterwarnings("ignore", told, UserWarning)


class Part(Protocol):
    """A model with what trains it; ``StageTrainer`` is one."""

    @property
    def model(self) -> torch.nn.Module:
        """All of it, frozen weights too."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Over ``trained``."""

    @property
    def trained(self) -> Mapping[str, torch.nn.Parameter]:
        """What the optimizer moves, by the model's names."""


def run_tensors(parts: Mapping[str, Part], ranks: Ranks) -> dict[str, torch.Tensor]:
    """All tensors of a run as this rank holds them, by name; the run's own, and no copies."""
    tensors: dict[str, torch.Tensor] = {}
    for part, owner in parts.items():
        reshard(owner.model)
        tensors |= {f"{part}.model.{name}": tensor for name, tensor in owner.model.state_dict().items()}
        for name, parameter in owner.trained.items():
            for moment, tensor in owner.optimizer.state.get(parameter, {}).items():
                tensors[f"{part}.optimizer.{name}.{moment}"] = tensor
    return tensors | random_state(ranks)


def still_names(parts: Mapping[str, Part]) -> set[str]:
    """Names of the tensors that nothing moves as long as the parts train what they train now: frozen weights."""
    return {
        f"{part}.model.{name}"
        for part, owner in parts.items()
        for name, parameter in owner.model.named_parameters()
        if not parameter.requires_grad
    }


def random_state(ranks: Ranks) -> dict[str, torch.Tensor]:
    """The states of this rank's generators."""
    states = {f"rng.{ranks.rank}.cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states[f"rng.{ranks.rank}.cuda"] = torch.cuda.get_rng_state(ranks.device)
    return states


class TensorCopies:
    """Copies in main memory of tensors that training moves, in memory that is used again from save to save.

    Fresh memory would take seven times as long: the kernel hands it out page by page.
    """

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, torch.Tensor], still: set[str]) -> dict[str, torch.Tensor]:
        """The tensors as they are now. Those named in ``still`` are the given ones; copies hold until the next call."""
        moving = {name: tensor for name, tensor in tensors.items() if name not in still}
        self._memory = {name: room for name, room in self._memory.items() if name in moving}
        for name, tensor in moving.items():
            if name not in self._memory:
                # Pinned, or the GPU would copy through memory that is.
                self._memory[name] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            own(self._memory[name]).copy_(own(tensor), non_blocking=True)
        if any(tensor.is_cuda for tensor in moving.values()):
            torch.cuda.synchronize()
        return {**tensors, **self._memory}


def write_tensors(folder: str, tensors: Mapping[str, torch.Tensor], ranks: Ranks) -> dict[str, str]:
    """Write them as a new folder and to the disk; returns the digest of every file in it. Every rank must call it.

    Raises on every rank OSError, ValueError or RuntimeError where it failed on one.
    """
    with _plain_errors():
        writer = _PlainWriter(folder)
        state_dict_saver.save(dict(tensors), storage_writer=writer, no_dist=ranks.world == 1, process_group=ranks.group)
    own = (f"__{ranks.rank}_", ".metadata" if ranks.is_first else f"__{ranks.rank}_")
    found = ranks.agree(
        lambda: {name: file_digest(os.path.join(folder, name)) for name in os.listdir(folder) if name.startswith(own)}
    )
    return {name: digest for digests in found for name, digest in digests.items()}


def check_files(folder: str, digests: Mapping[str, str], ranks: Ranks) -> None:
    """Raises ValueError on every rank where a file is not the one that was written, OSError where it is gone.

    Each rank reads its share of them. Every rank must call it.
    """

    def check() -> None:
        for name in sorted(digests)[ranks.rank :: ranks.world]:
            if (found := file_digest(os.path.join(folder, name))) != digests[name]:
                raise ValueError(f"{name} has digest {found}, was written with {digests[name]}")

    ranks.agree(check)


def read_model(folder: str, part: str, model: torch.nn.Module, ranks: Ranks) -> None:
    """A part's weights, in place. Raises ValueError where one is not there or of another shape."""
    _read(folder, {f"{part}.model.{name}": tensor for name, tensor in model.state_dict().items()}, ranks)


def read_parts(folder: str, parts: Mapping[str, Part], ranks: Ranks) -> None:
    """Weights, moments and random states, in place, however many ranks wrote them. Raises as ``read_model``.

    A rank that had no generator then leaves its own as it is.
    """
    there = filesystem.FileSystemReader(folder).read_metadata().state_dict_metadata
    for part, owner in parts.items():
        read_model(folder, part, owner.model, ranks)
        moments: dict[str, torch.Tensor] = {}
        for name, parameter in owner.trained.items():
            # A parameter that no example has reached yet (the adaptor in a stage of text) has none.
            for moment in MOMENTS:
                if (key := f"{part}.optimizer.{name}.{moment}") in there:
                    moments[key] = torch.zeros(()) if moment == "step" else torch.zeros_like(parameter)
        _read(folder, moments, ranks)
        for key, tensor in moments.items():
            name, moment = key.removeprefix(f"{part}.optimizer.").rsplit(".", 1)
            parameter = owner.trained[name]
            # The fused optimizer wants its step counter beside the parameter.
            owner.optimizer.state[parameter][moment] = tensor.to(parameter.device)
    states = {key: state for key, state in random_state(ranks).items() if key in there}
    _read(folder, states, ranks)
    for key, state in states.items():
        torch.set_rng_state(state) if key.endswith("cpu") else torch.cuda.set_rng_state(state, ranks.device)


def _read(folder: str, tensors: dict[str, torch.Tensor], ranks: Ranks) -> None:
    with _plain_errors():
        state_dict_loader.load(tensors, checkpoint_id=folder, no_dist=ranks.world == 1, process_group=ranks.group)


class _PlainWriter(filesystem.FileSystemWriter):
    """Says of a disk that fails what the disk said: what an exception came of does not travel from rank to rank with it."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            # A writer of tensors that fails while it closes says what it counted; the disk's own word lies behind.
            found: BaseException | None = error
            while found is not None and not isinstance(found, OSError):
                found = found.__cause__ or found.__context__
            if found is None:
                raise
            raise found from None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What torch.distributed.checkpoint wraps in an exception that no handler of Exception sees, as what it was."""
    try:
        yield
    except CheckpointException as error:
        failure = next(cause for cause, _ in error.failures.values())
        if isinstance(failure, OSError | KeyboardInterrupt):
            raise failure from error
        raise ValueError(" ".join(str(failure).split())) from error
