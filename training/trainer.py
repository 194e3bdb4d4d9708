"""One optimiser step of any stage: rates, loss by kind, clipping, and the refusal to step where the watch rings."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from manifests.errors import RequestError
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.batches import Batch, CtcBatch, on_device
from training.model import StepAudio2
from training.objectives import Sums, ctc_sums, token_sums
from training.ranks import ALONE, Ranks
from training.recipe import CtcStage, Group, GroupRate, Logits, Precision, PretrainStage, Schedule, Stage
from training.sharding import group_norms, own, reshard, sum_gradients
from training.spikes import NothingLeft, Rung, SpikeRecipe, SpikeWatch

# What moves with the clock and not with the run: left out wherever two runs are compared.
CLOCK_COLUMNS = ("wall_s", "data_wait_s", "tokens_per_s", "checkpoint_stall_s", "flops", "mfu", "hfu")
BY_KIND = ("loss_K", "entropy_K", "correct_K", "count_K")  # of ``Sums``, in its order


class StageTrainer:
    """The model under one stage's rules: what is frozen, the optimizer over the rest, and how far it has come.

    Over ranks the model is sharded (``sharding.shard``) and each rank has its own micro-batches of the step; loss, gradient
    and row are those of all of them together, and every rank decides alike.
    """

    def __init__(
        self,
        model: StepAudio2,
        stage: Stage,
        vocabulary: Vocabulary,
        ranks: Ranks = ALONE,
        watch: SpikeWatch | None = None,
        precision: Precision = Precision.FP32,
    ) -> None:
        """``watch``: of the run; without one, one of its own with the defaults."""
        self.model, self.stage, self.ranks, self.device = model, stage, ranks, ranks.device
        self.watch = watch or SpikeWatch(SpikeRecipe())
        self.step = 0
        self.vocabulary, self.precision = vocabulary, precision
        reshard(model)
        self._masked = masked_ids(stage, vocabulary)
        self._tags = stage.tags if isinstance(stage, CtcStage) else {}
        self._trained = freeze_all_but(model, stage)
        self.optimizer = torch.optim.AdamW(optimizer_groups(model, stage), betas=stage.betas, fused=True)

    @property
    def num_trainable(self) -> int:
        """Parameters that this stage trains."""
        return sum(parameter.numel() for parameter in self._trained.values())

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters by name."""
        return self._trained

    def train_step(self, batches: Sequence[Batch] | Sequence[CtcBatch]) -> dict[str, Any]:
        """One step over the micro-batches of all ranks, of which these are this rank's; returns its row of metrics, ``step`` counted from 1.

        The loss is the weighted sum over all micro-batches by the weight of all of them. Raises Rung before the optimizer moves
        where the watch rings at loss or gradient norm, and NothingLeft for a step without a target, on every rank: these are the same on each.
        """
        facts = [(batch.weight, batch.num_tokens, batch.padding, 1) for batch in batches]
        own_facts = torch.tensor([sum(values) for values in zip(*facts, strict=True)] or 4 * [0.0], dtype=torch.float64)
        weight, tokens, padding, parts = self.ranks.sum(own_facts).tolist()
        if not weight:
            raise NothingLeft(self.stage.name, self.step + 1)
        rates = self._set_rates()
        total, norms = self.gradients(batches, weight)
        loss = float(total.loss.float() / weight)
        kinds = by_kind(total, list(self._tags))
        losses = {name: value for name, value in kinds.items() if name.startswith("loss_")}
        finding = self.watch.judge(loss, float(norms["grad_norm"]), losses)
        if finding.cause is not None:
            raise Rung(self.stage.name, self.step + 1, weight, finding)
        self._clip(norms["grad_norm"])
        self.optimizer.step()
        self.step += 1
        return {
            "stage": self.stage.name,
            "step": self.step,
            "loss": loss,
            **kinds,
            "lr": max(rates.values()),
            **{f"lr_{group}": rate for group, rate in rates.items()},
            **{name: float(norm) for name, norm in norms.items()},
            "tokens": int(tokens),
            "padding": padding / parts,
            **({"spikes": self.watch.num_spikes} if self.watch.num_spikes else {}),  # of the run so far
        }

    def gradients(self, batches: Sequence[Batch | CtcBatch], weight: float) -> tuple[Sums, dict[str, torch.Tensor]]:
        """(Sums over the micro-batches of all ranks, norms of their gradient of all and by group); the gradient lies in the parameters.

        ``weight``: what loss is divided by before it is differentiated. Every rank must call it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = [self._work_through(batch, weight) for batch in batches]
        sum_gradients([p for p in self._trained.values() if not isinstance(p, DTensor)], self.ranks)
        return self._total(sums), self._norms()

    def sums(self, batch: Batch | CtcBatch) -> Sums:
        """What the micro-batch by itself adds to a step."""
        batch = on_device(batch, self.device)
        # Without autocast's own cache of narrow weights: a forward pass uses each once, and blocks that recompute would hold them all.
        is_narrow = self.precision is Precision.BF16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_narrow, cache_enabled=False):
            if isinstance(batch, CtcBatch):
                return ctc_sums(self.model, batch, self._tags)
            return token_sums(self.model, batch, self._masked)

    def _work_through(self, batch: Batch | CtcBatch, weight: float) -> Sums:
        """Add the micro-batch's share of the gradient; returns its sums, which hold no graph."""
        sums = self.sums(batch)
        if sums.loss.requires_grad:  # else nothing that the stage trains was reached: an adaptor, and no audio
            (sums.loss / weight).backward()
        return replace(sums, loss=sums.loss.detach())

    def _total(self, sums: Sequence[Sums]) -> Sums:
        """Of the micro-batches of all ranks: float64, on the CPU."""
        loss = sum((part.loss for part in sums), torch.zeros((), device=self.device))
        none = torch.zeros(1, len(TokenKind) + len(self._tags), device=self.device)  # a rank may have nothing of a step
        kinds = [torch.stack([getattr(part, name) for part in sums] or [*none]).sum(0) for name in BY_KIND]
        sizes = [1, *(len(kind) for kind in kinds)]
        loss_1, *kinds = self.ranks.sum(torch.cat([loss[None], *kinds]).double().cpu()).split(sizes)
        return Sums(loss_1[0], *kinds)

    def _norms(self) -> dict[str, torch.Tensor]:
        """Norms of the gradients over all ranks, before clipping: of all and by group."""
        none = torch.zeros(1, device=self.device)
        given = {group.value: [none if p.grad is None else p.grad for p in self._owned(group)] for group in self.stage.train}
        norms = {f"grad_norm_{group}": norm for group, norm in group_norms(given, self.ranks).items()}
        return {"grad_norm": torch.linalg.vector_norm(torch.stack(list(norms.values()))), **norms}

    def _clip(self, norm: torch.Tensor) -> None:
        """Scale all gradients, whose joint norm is ``norm``, so that it is at most the stage's."""
        scale = (self.stage.clip_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter in self._trained.values():
            if parameter.grad is not None:
                own(parameter.grad).mul_(scale)

    def _owned(self, group: Group) -> list[torch.nn.Parameter]:
        return [p for part in self.optimizer.param_groups if part["name"] == group.value for p in part["params"]]

    def _set_rates(self) -> dict[str, float]:
        rates = {group.value: rate_at(rate, self.step, self.stage) for group, rate in self.stage.train.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        return rates


def masked_ids(stage: Stage, vocabulary: Vocabulary) -> slice | None:
    """Ids that the stage's head cannot emit: the audio ids, and the padding rows behind them."""
    is_text = isinstance(stage, PretrainStage) and stage.vocabulary is Logits.TEXT
    return slice(vocabulary.audio_base, None) if is_text else None


def freeze_all_but(model: StepAudio2, stage: Stage) -> dict[str, torch.nn.Parameter]:
    """Let gradients reach what the stage trains only; returns these parameters by name.

    Gradients that an earlier stage left are freed: nothing would read them, and the optimizer clears its own groups only.
    Raises RequestError as ``trained_names``.
    """
    named = {group: [name for name, _ in parameters] for group, parameters in model.groups().items()}
    chosen = {name for names in trained_names(named, stage).values() for name in names}
    trained: dict[str, torch.nn.Parameter] = {}
    for parameters in model.groups().values():
        for name, parameter in parameters:
            parameter.requires_grad_(name in chosen)
            parameter.grad = None
            if name in chosen:
                trained[name] = parameter
    return trained


def trained_names(named: Mapping[str, Sequence[str]], stage: Stage) -> dict[Group, list[str]]:
    """Of the model's weights by group, the names of those that the stage trains.

    Raises RequestError for a pattern in ``frozen`` that matches none of them, and for a group of which nothing is left.
    """
    trained: dict[Group, list[str]] = {}
    within = [name for group in stage.train for name in named[group.value]]
    for pattern in stage.frozen:
        if not fnmatch.filter(within, pattern):
            raise RequestError(
                f"stage {stage.name!r}: frozen pattern {pattern!r} matches no weight of the groups that it trains "
                f"({', '.join(stage.train)}); their names begin like {within[0]!r}"
            )
    for group in stage.train:
        trained[group] = [name for name in named[group.value] if not any(fnmatch.fnmatchcase(name, p) for p in stage.frozen)]
        if not trained[group]:
            raise RequestError(
                f"stage {stage.name!r} trains group {group.value!r}, of which nothing is left: frozen has {list(stage.frozen)}; "
                "take the group out of train, or a pattern out of frozen"
            )
    return trained


def optimizer_groups(model: StepAudio2, stage: Stage) -> list[dict[str, Any]]:
    """Of what ``freeze_all_but`` left trainable, two parameter groups for each group of the model: matrices with weight decay; norms, biases and the embedding without."""
    groups = []
    for group, rate in stage.train.items():
        parameters = [(name, p) for name, p in model.groups()[group.value] if p.requires_grad]
        decayed = [p for _, p in parameters if p.ndim > 1 and group is not Group.EMBEDDING]
        plain = [p for _, p in parameters if p.ndim == 1 or group is Group.EMBEDDING]
        for chosen, decay in ((decayed, stage.weight_decay), (plain, 0.0)):
            if chosen:
                groups.append({"params": chosen, "lr": rate.lr, "weight_decay": decay, "name": group.value})
    return groups


def rate_at(rate: GroupRate, step: int, stage: Stage) -> float:
    """Learning rate of the step (from 0): linear warm-up, then the stage's schedule from ``lr`` to ``lr_end`` at the last step."""
    if step < stage.warmup_steps:
        return rate.lr * (step + 1) / (stage.warmup_steps + 1)
    if rate.lr_end is None:
        return rate.lr
    done = (step - stage.warmup_steps) / max(1, stage.num_steps - 1 - stage.warmup_steps)
    left = 1.0 - done if stage.schedule is Schedule.LINEAR else 0.5 * (1.0 + math.cos(math.pi * done))
    return rate.lr_end + left * (rate.lr - rate.lr_end)


def by_kind(total: Sums, tags: Sequence[str] = ()) -> dict[str, float]:
    """``loss_<kind>``, ``entropy_<kind>``, ``accuracy_<kind>`` and ``count_<kind>`` of a step, for the kinds that had targets; of the
    stage's tags as kinds ``tag_<name>``."""
    names = [*(kind.name.lower() for kind in TokenKind), *(f"tag_{name}" for name in tags)]
    columns: dict[str, float] = {}
    rows = zip(names, *(getattr(total, name).tolist() for name in BY_KIND), strict=True)
    for name, loss, entropy, correct, count in rows:
        if count:
            columns |= {
                f"loss_{name}": loss / count,
                f"accuracy_{name}": correct / count,
                f"entropy_{name}": entropy / count,
                f"count_{name}": int(count),
            }
    return columns
