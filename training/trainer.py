"""One optimiser step of any stage: rates, loss by kind, clipping, and the refusal to step on a loss that is not a number."""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from manifests.errors import RequestError, WorkError
from tokenization.stretches import TokenKind
from training.data import collate
from training.examples import Example
from training.model import StepAudio2
from training.objectives import Sums, ctc_sums, token_sums
from training.recipe import CtcStage, Group, GroupRate, Schedule, Stage

# What moves with the clock and not with the run: left out wherever two runs are compared.
CLOCK_COLUMNS = ("wall_s", "tokens_per_s")


class StageTrainer:
    """The model under one stage's rules: what is frozen, the optimizer over the rest, and how far it has come."""

    def __init__(self, model: StepAudio2, stage: Stage, pad_id: int, device: torch.device) -> None:
        self.model, self.stage, self.device = model, stage, device
        self.step = 0
        self._pad_id = pad_id
        self._sums = ctc_sums if isinstance(stage, CtcStage) else token_sums
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

    def train_step(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One step over the examples; returns its row of metrics, ``step`` counted from 1.

        The loss is the weighted sum over all micro-batches by the weighted count over all of them. Raises WorkError
        before the optimizer moves when loss or gradient is not finite.
        """
        began = time.perf_counter()
        size = len(examples) // self.stage.micro_batches
        parts = [examples[start : start + size] for start in range(0, len(examples), size)]
        batches = [collate(part, self.model.config.encoder.num_mels, self._pad_id, self.device) for part in parts]
        weight = torch.stack([batch.weights_BT.sum() for batch in batches]).sum()
        rates = self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        sums = []
        for batch in batches:
            part = self._sums(self.model, batch)
            self._refuse_unless_finite(part.loss, "loss", batch.keys)
            (part.loss / weight).backward()
            sums.append(part)
        norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), self.stage.clip_grad_norm)
        self._refuse_unless_finite(norm, "gradient norm", [example.document_id for example in examples])
        self.optimizer.step()
        self.step += 1
        tokens = sum(len(example.ids) for example in examples)
        wall_s = time.perf_counter() - began
        clock = {"wall_s": wall_s, "tokens_per_s": tokens / wall_s}
        loss = float(sum(part.loss.detach() for part in sums) / weight)
        row = {"stage": self.stage.name, "step": self.step, "loss": loss, **by_kind(sums)}
        return {**row, "lr": max(rates.values()), **_named("lr", rates), "grad_norm": float(norm), "tokens": tokens, **clock}

    def _set_rates(self) -> dict[str, float]:
        rates = {group.value: rate_at(rate, self.step, self.stage) for group, rate in self.stage.train.items()}
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        return rates

    def _refuse_unless_finite(self, value: torch.Tensor, what: str, keys: Sequence[str]) -> None:
        if not bool(torch.isfinite(value)):
            raise WorkError(
                f"stage {self.stage.name!r} step {self.step + 1}: {what} is {float(value)}; it must be finite. Nothing was updated. "
                f"Lower the learning rate, or look at documents {', '.join(dict.fromkeys(keys))[:200]}"
            )


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


def by_kind(sums: Sequence[Sums]) -> dict[str, float]:
    """``loss_<kind>``, ``accuracy_<kind>`` and ``count_<kind>`` over micro-batches, for the kinds that had targets."""
    loss_K = torch.stack([part.loss_K for part in sums]).sum(0).tolist()
    correct_K = torch.stack([part.correct_K for part in sums]).sum(0).tolist()
    count_K = torch.stack([part.count_K for part in sums]).sum(0).tolist()
    columns: dict[str, float] = {}
    for kind in TokenKind:
        if count := count_K[kind]:
            name = kind.name.lower()
            columns |= {
                f"loss_{name}": loss_K[kind] / count,
                f"accuracy_{name}": correct_K[kind] / count,
                f"count_{name}": int(count),
            }
    return columns


def _named(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in values.items()}
