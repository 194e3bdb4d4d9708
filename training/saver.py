"""When a run saves checkpoints, what it states in them, and which it keeps.

A save copies what moves and goes on training: a thread writes the copies, one save at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

import torch

from manifests.console import say
from training import checkpoint
from training.checkpoint import CheckpointState, Identity, Progress
from training.device import Arithmetic
from training.ranks import Ranks, is_loss
from training.recipe import TrainingRecipe
from training.tensors import Part, TensorCopies, run_tensors, still_names


class Saver:
    """The checkpoints of one run; used with ``with``, behind which none is under way.

    What a save fails with in the background is raised by the ``look``, ``save`` or ``wait`` that comes next, on every rank by the
    same one, or at the end of the block.
    """

    def __init__(self, run_path: str, recipe: TrainingRecipe, identity: Identity, arithmetic: Arithmetic, ranks: Ranks) -> None:
        self.run_path, self.recipe, self.identity, self.arithmetic = run_path, recipe, identity, arithmetic
        self.newest: str | None = None  # name of the last one that is whole
        self.finished_stages: list[dict[str, Any]] = []  # rows of the run's summary
        self.inexact_resumes: list[dict[str, Any]] = []  # as in a checkpoint
        self.stall_s = 0.0  # that the loop stood still for checkpoints behind its last row of metrics
        self._ranks, self._copies = ranks, TensorCopies()
        self._under_way: Future[str] | None = None

    def __enter__(self) -> Saver:
        self._open = ExitStack()
        self._apart = self._open.enter_context(self._ranks.apart())
        self._thread = self._open.enter_context(ThreadPoolExecutor(1, thread_name_prefix="checkpoint"))
        return self

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        """Waits for what is under way, also where the block was interrupted: its checkpoint is the newest then."""
        with self._open:
            try:
                self.wait()
            except Exception as error:
                # The disk that failed the block is the one that failed the save, which says more of it.
                if failure is None or isinstance(failure, OSError):
                    raise
                if not is_loss(error):  # else the block has met the same
                    say(f"error: {error}")

    def go_on(self, held: CheckpointState, differing: Mapping[str, Any]) -> None:
        """What follows goes on from that checkpoint, computed otherwise in what is ``differing``."""
        self.newest, self.finished_stages = held.name, list(held.finished_stages)
        self.inexact_resumes = list(held.inexact_resumes)
        if differing:
            self.inexact_resumes.append({"global_step": held.global_step, "differing": dict(differing)})

    def last(self) -> CheckpointState:
        """The newest checkpoint, once it is whole. Raises as ``wait`` and ``checkpoint.load_state``."""
        self.wait()
        assert self.newest is not None
        return checkpoint.load_state(checkpoint.path_of(self.run_path, self.newest))

    def finish(self, number: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of all stages that are done, with that of the stage of this number; one that was there already stays."""
        if len(self.finished_stages) == number:
            self.finished_stages = [*self.finished_stages, row]
        return self.finished_stages

    def load(self, held: CheckpointState, parts: Mapping[str, Part]) -> None:
        """The checkpoint's tensors, in place. Raises as ``checkpoint.load_parts``."""
        checkpoint.load_parts(checkpoint.path_of(self.run_path, held.name), parts, self._ranks)

    def save(self, parts: Mapping[str, Part], progress: Progress) -> None:
        """Begin a checkpoint of what is there now; waits for the one before it. Raises what that came to, as ``checkpoint.save``."""
        self.wait()
        state = CheckpointState(
            **vars(progress),
            identity=self.identity,
            arithmetic=self.arithmetic,
            parent=self.newest,
            finished_stages=self.finished_stages,
            inexact_resumes=self.inexact_resumes,
        )
        tensors = self._copies.take(run_tensors(parts, self._ranks), still_names(parts))
        self._under_way = self._thread.submit(self._publish, tensors, state)

    def look(self) -> None:
        """Raises what the save under way has failed with, if it has on any rank; does not wait for it. Every rank must call it."""
        if self._under_way is not None:
            has_failed = self._under_way.done() and self._under_way.exception() is not None
            if self._ranks.sum(torch.tensor(float(has_failed))) > 0:
                self.wait()

    def wait(self) -> None:
        """Until no save is under way. Raises what it came to, as ``checkpoint.save``."""
        if self._under_way is not None:
            wait([self._under_way])
            ended, self._under_way = self._under_way, None
            self.newest = ended.result()

    def _publish(self, tensors: Mapping[str, torch.Tensor], state: CheckpointState) -> str:
        checkpoint.save(self.run_path, tensors, state, self._apart)
        if self._apart.is_first:
            self._drop_old()
        self._apart.barrier()
        return state.name

    def _drop_old(self) -> None:
        """The new one is whole, so an old one that does not go is no failure of the run."""
        last_steps = {stage.name: stage.num_steps for stage in self.recipe.stages}
        try:
            checkpoint.drop_old(self.run_path, self.recipe.keep_checkpoints, last_steps)
        except OSError as error:
            say(
                f"an old checkpoint of run {self.run_path!r} cannot be removed ({error.strerror}: {error.filename}); tried again behind the next"
            )
