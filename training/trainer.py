"""One optimiser step of any stage: rates, loss by kind, clipping, and the refusal to step on a loss that is not a number."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from manifests.errors import RequestError, WorkError
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.batches import Batch, CtcBatch, on_device
from training.model import StepAudio2
from training.objectives import Sums, ctc_sums, token_sums
from training.recipe import Group, GroupRate, Logits, PretrainStage, Schedule, Stage

# What moves with the clock and not with the run: left out wherever two runs are compared.
CLOCK_COLUMNS = ("wall_s", "data_wait_s", "tokens_per_s")


class StageTrainer:
    """The model under one stage's rules: what is frozen, the optimizer over the rest, and how far it has come."""

    def __init__(self, model: StepAudio2, stage: Stage, vocabulary: Vocabulary, device: torch.device) -> None:
        self.model, self.stage, self.device = model, stage, device
        self.step = 0
        self.vocabulary = vocabulary
        self._masked = masked_ids(stage, vocabulary)
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
        """One step over its micro-batches; returns its row of metrics, ``step`` counted from 1.

        The loss is the weighted sum over all micro-batches by the weight of all of them. Raises WorkError before the
        optimizer moves when loss or gradient is not finite.
        """
        weight = sum(batch.weight for batch in batches)
        rates = self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        sums = []
        for batch in batches:
            part = self._sums(batch)
            self._refuse_unless_finite(part.loss, "loss", batch.document_ids)
            (part.loss / weight).backward()
            sums.append(part)
        norms = self._clip()
        self._refuse_unless_finite(norms["grad_norm"], "gradient norm", [key for batch in batches for key in batch.document_ids])
        self.optimizer.step()
        self.step += 1
        loss = float(sum(part.loss.detach() for part in sums) / weight)
        return {
            "stage": self.stage.name,
            "step": self.step,
            "loss": loss,
            **by_kind(sums),
            "lr": max(rates.values()),
            **{f"lr_{group}": rate for group, rate in rates.items()},
            **{name: float(norm) for name, norm in norms.items()},
            "tokens": sum(batch.num_tokens for batch in batches),
            "padding": sum(batch.padding for batch in batches) / len(batches),
        }

    def _sums(self, batch: Batch | CtcBatch) -> Sums:
        if isinstance(batch, CtcBatch):
            return ctc_sums(self.model, on_device(batch, self.device))
        return token_sums(self.model, on_device(batch, self.device), self._masked)

    def _clip(self) -> dict[str, torch.Tensor]:
        """Scale all gradients so that their joint norm is at most the stage's; the norms before, of all and by group."""
        norms = {}
        for group in self.stage.train:
            owned = [p for part in self.optimizer.param_groups if part["name"] == group.value for p in part["params"]]
            norms[f"grad_norm_{group.value}"] = torch.nn.utils.get_total_norm(
                [p.grad if p.grad is not None else torch.zeros(1, device=self.device) for p in owned]
            )
        whole = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        torch.nn.utils.clip_grads_with_norm_(self._trained.values(), self.stage.clip_grad_norm, whole)
        return {"grad_norm": whole, **norms}

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


def by_kind(sums: Sequence[Sums]) -> dict[str, float]:
    """``loss_<kind>``, ``accuracy_<kind>``, ``entropy_<kind>`` and ``count_<kind>`` over micro-batches, for the kinds that
    had targets."""
    loss_K, correct_K, entropy_K, count_K = (
        torch.stack([getattr(part, name) for part in sums]).sum(0).tolist()
        for name in ("loss_K", "correct_K", "entropy_K", "count_K")
    )
    columns: dict[str, float] = {}
    for kind in TokenKind:
        if count := count_K[kind]:
            name = kind.name.lower()
            columns |= {
                f"loss_{name}": loss_K[kind] / count,
                f"accuracy_{name}": correct_K[kind] / count,
                f"entropy_{name}": entropy_K[kind] / count,
                f"count_{name}": int(count),
            }
    return columns
