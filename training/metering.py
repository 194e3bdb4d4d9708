"""What each step asks of the arithmetic, and how much of what the devices could do that is.

MFU counts what the model needs (PaLM, arXiv 2204.02311, appendix B): documents without padding, attention within them, the backward
pass where gradients flow. HFU counts what was computed: padding too, and blocks that ran again in the backward pass. Neither counts
frames of the encoder that a cache brought. The formulas are those of plans (``cost.stage_flops``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from training.batches import Batch, CtcBatch, HeardBatch, HeardPieces
from training.cost import Work, stage_flops
from training.machines import Peak
from training.recipe import CtcStage
from training.trainer import StageTrainer, masked_ids


@dataclass(frozen=True)
class StepFlops:
    """Operations of one step over all ranks."""

    needed: float
    computed: float


class StepMeter:
    """Counts the steps of one stage. ``peak``: of one device, of which every rank has one.

    Weights that a pattern freezes within a trained group are counted as trained.
    """

    def __init__(self, trainer: StageTrainer, peak: Peak) -> None:
        self._stage, self._model, self._peak, self._ranks = trainer.stage, trainer.model, peak, trainer.ranks
        masked = masked_ids(trainer.stage, trainer.vocabulary)
        self._num_rows = trainer.vocabulary.num_rows if masked is None else masked.start

    def count(self, batches: Sequence[Batch] | Sequence[CtcBatch]) -> StepFlops:
        """Of the step's micro-batches of this rank and all others; called before the step, which fills the cache. Every rank must."""
        needed = self._flops(sum((needed_work(batch) for batch in batches), Work()))
        computed = self._flops(sum((computed_work(batch) for batch in batches), Work()), recomputes=self._model.model.recomputes)
        return StepFlops(*self._ranks.sum(torch.tensor([needed, computed], dtype=torch.float64)).tolist())

    def columns(self, flops: StepFlops, wall_s: float) -> dict[str, float]:
        """``flops`` (needed), ``mfu`` and ``hfu`` of a step that took so long, the wait for its data included."""
        possible = wall_s * self._peak.flops_per_s * self._ranks.world
        return {"flops": flops.needed, "mfu": flops.needed / possible, "hfu": flops.computed / possible}

    def _flops(self, work: Work, *, recomputes: bool = False) -> float:
        parts = stage_flops(
            self._model.config,
            self._num_rows,
            self._model.ctc_head.out_features,
            work,
            self._stage.train,
            is_ctc=isinstance(self._stage, CtcStage),
            recomputes=recomputes,
        )
        return sum(part.total for part in parts.values())


def needed_work(batch: Batch | CtcBatch) -> Work:
    """Work of the batch's documents and of their audio, without any padding."""
    if isinstance(batch, CtcBatch):
        return _pieces((batch.heard.num_valid_A + 2).tolist())
    lengths = batch.spans.lengths
    work = Work(positions=sum(lengths), pairs=sum(length * (length + 1) / 2 for length in lengths), targets=len(batch.targets_N))
    for heard in batch.heard:
        if isinstance(heard, HeardBatch):
            work += _pieces((heard.num_valid_A + 2).tolist())
        else:
            work += replace(_pieces(_to_encode(heard)), patches=int(heard.num_patches_A.sum()))
    return work


def computed_work(batch: Batch | CtcBatch) -> Work:
    """Work of the batch's tensors: rows to their full width, audio padded to the longest of its group. Attention never is."""
    if isinstance(batch, CtcBatch):
        return _padded(batch.heard)
    work = replace(needed_work(replace(batch, heard=())), positions=batch.ids_BT.numel())
    for heard in batch.heard:
        if isinstance(heard, HeardBatch):
            work += _padded(heard)
        else:
            patches = len(heard.num_patches_A) * int(heard.num_patches_A.max())
            work += replace(_pieces(_to_encode(heard)), patches=patches)
    return work


def _padded(heard: HeardBatch) -> Work:
    num_pieces, _, mel_frames = heard.mels_ACM.shape
    return Work.of_piece(mel_frames) * num_pieces


def _pieces(mel_frames: Iterable[int]) -> Work:
    """Pieces of so many mel frames each."""
    return sum((Work.of_piece(frames) * times for frames, times in Counter(mel_frames).items()), Work())


def _to_encode(heard: HeardPieces) -> list[int]:
    """Mel frames of the pieces that nobody has encoded yet; two that share a slot are encoded once."""
    waiting = {id(slot): mel for slot, mel in zip(heard.slots, heard.mels_A, strict=True) if slot.frames_FE is None}
    return [mel.shape[1] for mel in waiting.values() if mel is not None]
