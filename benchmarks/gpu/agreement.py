"""Whether every way of attention gives what the CPU's gives: one sequence, one small model, the loss and its gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.material import Material
from training.batches import Batch, on_device
from training.config import ModelConfig, model_config
from training.model import StepAudio2
from training.objectives import token_sums

SIZE = "small"
# Of the loss, and of the norm of the whole gradient; bfloat16 keeps eight bits of a number.
LIMITS = {"float32": 1e-4, "bfloat16": 5e-2}

Outcome = tuple[float, dict[str, torch.Tensor]]


def compare(material: Material, device: str) -> dict[str, Any]:
    """By type: how far loss and gradient are off, the limit of both, and the weights whose gradients are furthest off."""
    config, batch = model_config(SIZE), material.batches[0]
    config = replace(config, encoder=replace(config.encoder, num_mels=material.num_mels))
    reference = outcome(config, material.rows, batch, "cpu", torch.float32)
    return {
        name: _beside(reference, limit, outcome(config, material.rows, batch, device, getattr(torch, name)))
        for name, limit in LIMITS.items()
    }


def outcome(config: ModelConfig, rows: int, batch: Batch, device: str, dtype: torch.dtype) -> Outcome:
    """Loss a weight, and gradients by name, on the CPU."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # or the encoder's convolutions would be no float32
    model = StepAudio2(config, rows, 1).to(device)
    batch = on_device(batch, torch.device(device))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("encoder."))
    with torch.autocast(device, torch.bfloat16, enabled=dtype is torch.bfloat16, cache_enabled=False):
        loss = token_sums(model, batch).loss / batch.weight
    loss.backward()
    return float(loss), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def _beside(reference: Outcome, limit: float, other: Outcome) -> dict[str, Any]:
    (loss, gradients), (other_loss, other_gradients) = reference, other
    apart = {name: torch.linalg.vector_norm(other_gradients[name] - gradient) for name, gradient in gradients.items()}
    whole = {name: torch.linalg.vector_norm(gradient) for name, gradient in gradients.items()}
    errors = abs(other_loss / loss - 1), float(torch.stack([*apart.values()]).norm() / torch.stack([*whole.values()]).norm())
    by_weight = {name: float(apart[name] / whole[name]) for name in gradients if whole[name] > 0}
    return {
        "loss_error": errors[0],
        "gradient_error": errors[1],
        "limit": limit,
        "agrees": max(errors) <= limit,
        "furthest": dict(sorted(by_weight.items(), key=lambda item: -item[1])[:5]),
    }
