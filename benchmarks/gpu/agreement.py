"""Whether every way of attention gives what the CPU's gives: one sequence, one small model, the loss and its gradients."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.gpu.material import Material
from training.attention import varlen_kernel
from training.batches import Batch, on_device
from training.config import ModelConfig, model_config
from training.model import StepAudio2
from training.objectives import token_sums

SIZE = "small"
# Of the loss, and of the norm of the whole gradient; bfloat16 keeps eight bits of a number.
EXACT, NARROW = 1e-4, 5e-2

Found = tuple[float, dict[str, torch.Tensor]]


def report(material: Material, device: str) -> list[str]:
    """A line a way."""
    config, batch = model_config(SIZE), material.batches[0]
    config = replace(config, encoder=replace(config.encoder, num_mels=material.num_mels))
    reference = found(config, material.rows, batch, "cpu", torch.float32)
    lines = [line("FlexAttention, float32" if device == "cuda" else "SDPA by document again, float32", reference, EXACT,
                  found(config, material.rows, batch, device, torch.float32))]  # fmt: skip
    if device == "cuda" and varlen_kernel() is None:
        return [*lines, "varlen, bfloat16: not measured, this torch has no such kernel", ""]
    name = "varlen, bfloat16" if device == "cuda" else "SDPA by document, bfloat16"
    return [*lines, line(name, reference, NARROW, found(config, material.rows, batch, device, torch.bfloat16)), ""]


def found(config: ModelConfig, rows: int, batch: Batch, device: str, dtype: torch.dtype) -> Found:
    """Loss a weight, and gradients by name, on the CPU."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False  # or the encoder's convolutions would be no float32
    model = StepAudio2(config, rows, 1).to(device)
    batch = on_device(batch, torch.device(device))
    with torch.autocast(device, torch.bfloat16, enabled=dtype is torch.bfloat16, cache_enabled=False):
        loss = token_sums(model, batch).loss / batch.weight
    loss.backward()
    return float(loss), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def line(name: str, reference: Found, limit: float, other: Found) -> str:
    """How far both are apart, and whether that is within the limit."""
    (loss, gradients), (other_loss, other_gradients) = reference, other
    apart = [torch.linalg.vector_norm(other_gradients[key] - gradient) for key, gradient in gradients.items()]
    whole = [torch.linalg.vector_norm(gradient) for gradient in gradients.values()]
    errors = abs(other_loss / loss - 1), float(torch.stack(apart).norm() / torch.stack(whole).norm())
    verdict = "agrees" if errors[0] <= limit and errors[1] <= limit else "DIFFERS"
    return f"{name}, beside the CPU in float32: {verdict}; loss {errors[0]:.1e}, gradient {errors[1]:.1e} off, limit {limit:.0e}"
