"""A run on several processes: those that torchrun started, or workers that Ray Train starts. Both come to the same.

Ray is imported where it is asked for; the work itself knows of ranks only.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from manifests.errors import RequestError, StepwellError, WorkError
from manifests.ids import new_attempt_id
from training.data import size_of_part
from training.follower import Notes, followed
from training.ranks import LOST, WORLD, joined
from training.recipe import TrainingRecipe
from training.run import train
from training.run_folder import TrainResult

OBJECT_STORE_BYTES = 100 << 20  # nothing but the result travels through it


@dataclass(frozen=True)
class Request:
    """What ``train`` is asked for."""

    recipe: TrainingRecipe
    pack: str
    tokenizer: str
    run: str
    until: str | None = None
    resume: bool = False
    allow_inexact: bool = False

    def answer(self) -> tuple[TrainResult, bool]:
        """Train, with the other ranks if a launcher started some; the result, and whether this rank is the one to print it.

        Raises as ``train`` and ``joined``, and RequestError when a step does not come out even over the ranks.
        """
        with joined() as ranks:
            check_parts(self.recipe, ranks.world)
            modes: dict[str, Any] = {"until": self.until, "resume": self.resume, "allow_inexact": self.allow_inexact}
            return train(self.recipe, self.pack, self.tokenizer, self.run, **modes, ranks=ranks), ranks.is_first


def check_parts(recipe: TrainingRecipe, world: int) -> None:
    """Raises RequestError naming a stage whose steps do not come out even."""
    for stage in recipe.stages:
        size_of_part(stage, world)


def answer_on_ray(request: Request, workers: int, address: str | None) -> TrainResult:
    """Train on so many workers of a Ray cluster: the one at the address, or one of our own on this machine.

    Each worker takes a GPU where there are any, and as many CPUs as the recipe has threads. Raises as ``Request.answer``, and
    RequestError when the cluster has not enough of them, Ray is not installed, or another launcher started this process.
    """
    if WORLD in os.environ:
        raise RequestError(f"--workers {workers} under torchrun would start workers in each of its processes; use one of them")
    check_parts(request.recipe, workers)
    with _cluster(workers * request.recipe.threads, address):
        import ray
        from ray.train import LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        held = ray.cluster_resources()
        each: dict[str, float] = {"CPU": request.recipe.threads, **({"GPU": 1} if held.get("GPU", 0) else {})}
        _check_resources(held, each, workers)
        storage = tempfile.mkdtemp(prefix="stepwell-ray-train-")  # Ray's own; checkpoints are the run's
        quiet: dict[str, Any] = {"storage_path": storage, "logging_config": LoggingConfig(log_level="ERROR")}
        notes = Notes(os.path.join(request.run, f".notes.{new_attempt_id()}"))
        trainer = TorchTrainer(
            _work,
            train_loop_config={"request": request, "folder": os.getcwd(), "notes": notes},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu="GPU" in each, resources_per_worker=each),
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if "GPU" in each else "gloo"),
            run_config=RunConfig(**quiet),
        )
        try:
            with followed(request.recipe, request.run, notes):
                result: Any = trainer.fit()
        except TrainingFailedError as error:
            raise _plain(error) from error
        finally:
            shutil.rmtree(storage, ignore_errors=True)
        answer: TrainResult = result.return_value  # the first worker's
        return answer


def _work(config: dict[str, Any]) -> Any:
    """What each worker does, in the folder of the command where there is one: paths of the request may be relative to it."""
    if os.path.isdir(config["folder"]):
        os.chdir(config["folder"])
    from ray.train import get_context

    with config["notes"].written() if get_context().get_world_rank() == 0 else nullcontext():
        result, _ = config["request"].answer()
    return result


def _check_resources(held: dict[str, float], each: dict[str, float], workers: int) -> None:
    for name, amount in each.items():
        if held.get(name, 0) < workers * amount:
            raise RequestError(
                f"{workers} workers of {amount:g} {name} each are more than the cluster's {held.get(name, 0):g}; lower --workers or the "
                "recipe's threads"
            )


def _plain(error: Exception) -> StepwellError:
    """What a worker raised of its own in one line; those that only lost it say less."""
    failures = getattr(error, "worker_failures", {})
    # Ray wraps what was raised, to keep the traceback.
    causes = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
    own = sorted((cause for cause in causes if isinstance(cause, StepwellError)), key=lambda cause: LOST in str(cause))
    return (
        own[0]
        if own
        else WorkError(f"a worker of Ray Train has ended: {' '.join(str(error).split())[-300:]}; go on with --resume")
    )


@contextmanager
def _cluster(num_cpus: int, address: str | None) -> Iterator[None]:
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise RequestError(
            f"--workers needs Ray and {error.name}, which are not installed; pip install 'stepwell[pipeline]'"
        ) from error

    folder = None
    local: dict[str, Any] = {}
    if address is None:
        # Away from Ray's default folder, which another program's cluster may be using.
        folder = tempfile.mkdtemp(prefix="stepwell-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
        cores = max(num_cpus, os.cpu_count() or 1)  # threads beyond the cores take turns: slower, and the same bits
        local = {"num_cpus": cores, "include_dashboard": False, "_temp_dir": folder, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"Ray at {address or 'a cluster of our own'} cannot be used: {reason}; check --address") from error
    try:
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
