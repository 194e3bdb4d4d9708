"""Which documents of a step are to blame for what the watch rang at. Worked out only then: a forward pass of each alone, and a backward
pass as well where only the gradient is bad.

    not finite           every document whose own loss, or own gradient, is not finite
    loss too high        the documents furthest above their usual loss, until the loss of the rest would not ring
    gradient too large   every document whose own part of the step's gradient is past twice the usual norm of whole steps

Where that would be every document, or more than half of them where all is finite, none is named: it is the model then that is off.
Examples of spans of many documents are judged like the others, so that no other has to stand in for one, and never named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tokenization.stretches import TokenKind
from training.alone import each_alone, nothing
from training.batches import Batch, CtcBatch
from training.examples import NO_DOCUMENT
from training.objectives import Sums
from training.recipe import CtcStage
from training.spikes import Cause, Rung
from training.trainer import StageTrainer

LARGE_PART = 2.0  # of the usual norm of whole steps: no document's part of a step is so large by chance


@dataclass(frozen=True)
class Suspect:
    """A document of the step, alone."""

    key: str  # NO_DOCUMENT of an example of spans of many
    loss: float  # sum over its targets by their weights, as in the step's loss
    weight: float  # of all its targets
    mean_nll: float  # over its targets, unweighted
    usual: float | None  # what that was lately for targets of the same kinds; None before anything was usual
    grad_norm: float = 0.0  # of its part of the step's gradient; 0 where it was not looked at

    @property
    def excess(self) -> float:
        """How far its loss is above what is usual, nats a target."""
        return self.mean_nll - (self.usual or 0.0)


@dataclass(frozen=True)
class Blame:
    """What became of a step's examples: the documents named, the worst first, and how many examples there are."""

    documents: list[Suspect]
    num_documents: int


def blame(trainer: StageTrainer, batches: Sequence[Batch | CtcBatch], rung: Rung) -> Blame:
    """The documents to blame, of all ranks and the same on each. Every rank must call it, with its batches of the step.

    The optimizer must not have moved. Leaves gradients of no use behind.
    """
    own = [document for batch in batches for document in each_alone(batch)]
    suspects = [suspect for of_rank in trainer.ranks.gather(_suspects(trainer, own)) for suspect in of_rank]
    if rung.finding.cause is Cause.LOSS_NOT_FINITE:
        named = [suspect for suspect in suspects if not math.isfinite(suspect.loss)]
    elif rung.finding.cause is Cause.LOSS:
        named = _above(trainer, suspects)
    else:
        norms = [norm for of_rank in trainer.ranks.gather(_norms(trainer, own, rung)) for norm in of_rank]
        suspects = [replace(suspect, grad_norm=norm) for suspect, norm in zip(suspects, norms, strict=True)]
        named = _large(trainer, suspects)
    is_finite = rung.finding.cause in (Cause.LOSS, Cause.GRADIENT)
    most = len(suspects) // 2 if is_finite else len(suspects) - 1
    return Blame([suspect for suspect in named if suspect.key != NO_DOCUMENT] if len(named) <= most else [], len(suspects))


def _suspects(trainer: StageTrainer, own: Sequence[Batch | CtcBatch]) -> list[Suspect]:
    """This rank's documents by their losses."""
    found = []
    for number in range(max(trainer.ranks.gather(len(own)))):
        for document in own[number : number + 1] or _beside(trainer):
            with torch.no_grad():
                sums = trainer.sums(document)
            if document.document_ids:
                found.append(_suspect(trainer, document, sums))
    return found


def _beside(trainer: StageTrainer) -> list[Batch]:
    """What a rank works through while others do documents that it has not: decoders of all ranks run together, encoders do not."""
    return [] if isinstance(trainer.stage, CtcStage) else [nothing()]


def _suspect(trainer: StageTrainer, document: Batch | CtcBatch, sums: Sums) -> Suspect:
    counts = {kind: int(sums.count_K[kind]) for kind in TokenKind if sums.count_K[kind]}
    total, usuals = sum(counts.values()), {kind: trainer.watch.usual(f"loss_{kind.name.lower()}") for kind in counts}
    known = [usual * counts[kind] for kind, usual in usuals.items() if usual is not None]
    return Suspect(
        key=document.document_ids[0],
        loss=float(sums.loss),
        weight=document.weight,
        mean_nll=float(sums.loss_K[list(counts)].sum()) / max(1, total),
        usual=sum(known) / total if total and len(known) == len(counts) else None,
    )


def _above(trainer: StageTrainer, suspects: Sequence[Suspect]) -> list[Suspect]:
    """Those with the largest excess, as few as leave a step that does not ring."""
    ordered = sorted(suspects, key=lambda suspect: -suspect.excess)
    for num in range(1, len(ordered)):
        rest = ordered[num:]
        weight = sum(suspect.weight for suspect in rest)
        if not weight or not trainer.watch.rings(sum(suspect.loss for suspect in rest) / weight, 0.0):
            return ordered[:num]
    return ordered


def _norms(trainer: StageTrainer, own: Sequence[Batch | CtcBatch], rung: Rung) -> list[float]:
    """Norms of the parts that this rank's documents have in the step's gradient.

    Over ranks gradients are summed as they are made: documents go through one at a time, and the other ranks join in without one.
    """
    found = []
    for rank, num in enumerate(trainer.ranks.gather(len(own))):
        for number in range(num):
            is_own = rank == trainer.ranks.rank
            _, norms = trainer.gradients([own[number]] if is_own else _beside(trainer), rung.weight)
            if is_own:
                found.append(float(norms["grad_norm"]))
    return found


def _large(trainer: StageTrainer, suspects: Sequence[Suspect]) -> list[Suspect]:
    """Those whose gradient is not finite, then those with a large one."""
    usual = trainer.watch.usual("grad_norm")
    least = math.inf if usual is None else LARGE_PART * usual
    named = [suspect for suspect in suspects if not math.isfinite(suspect.grad_norm) or suspect.grad_norm > least]
    return sorted(named, key=lambda suspect: -suspect.grad_norm if math.isfinite(suspect.grad_norm) else -math.inf)
