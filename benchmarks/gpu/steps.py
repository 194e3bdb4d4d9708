"""Steps of the trainer over the material: how long they take, what share of the device's nominal speed that is, how much memory."""

from __future__ import annotations

import gc
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.card import nominal_of
from benchmarks.gpu.clock import Phases, seconds, usual_seconds
from benchmarks.gpu.material import Material
from training.batches import Batch, on_device
from training.config import model_config
from training.device import exact_arithmetic
from training.model import GROUP_PREFIXES, StepAudio2
from training.objectives import features, token_sums
from training.ranks import ALONE, Ranks
from training.sharding import group_norms
from training.tensors import TensorCopies, run_tensors, still_names

WARM_UP, SAVES, KERNELS = 2, 3, 25
FROZEN = ("encoder.", "ctc_head.")
CLIP = 1.0
# Kinds of kernels by what their names hold; the first that fits.
KINDS = {
    "attention": ("flash", "fmha", "flex_attention", "sdpa"),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "gemv", "splitk"),
    "optimizer": ("adam", "multi_tensor"),
    "convolutions": ("conv", "cudnn"),
    "copies and casts": ("memcpy", "memset", "copy_kernel", "copy_device", "fill"),
    "sorts and indices": ("sort", "scan", "index", "gather", "scatter", "embedding"),
    "compiled": ("triton",),
    "reductions": ("reduce", "norm", "softmax"),
}


@dataclass
class Trained:
    """A model and what moves it, as checkpoints know them (``training.tensors.Part``)."""

    model: StepAudio2
    optimizer: torch.optim.Optimizer
    trained: dict[str, torch.nn.Parameter]
    device: torch.device

    def step(self, batches: tuple[Batch, ...], phase: Callable[[str], AbstractContextManager[Any]] = nullcontext) -> float:
        """One step of ``StageTrainer`` in bfloat16: the loss by weight. ``phase`` is entered for each part of it."""
        self.optimizer.zero_grad(set_to_none=True)
        weight, losses = sum(batch.weight for batch in batches), []
        for batch in batches:
            with phase("copies to the device"):
                moved = on_device(batch, self.device)
            with phase("forward"), torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
                sums = token_sums(self.model, moved)
            with phase("backward"):
                (sums.loss / weight).backward()
            losses.append(sums.loss.detach())
        loss = float(torch.stack(losses).sum()) / weight
        with phase("norms and clipping"):
            self._clip()
        with phase("optimizer"):
            self.optimizer.step()
        return loss

    def _clip(self) -> None:
        given: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name, parameter in self.trained.items():
            if parameter.grad is not None:
                given[next(group for group, starts in GROUP_PREFIXES.items() if name.startswith(starts))].append(parameter.grad)
        norm = torch.linalg.vector_norm(torch.stack([*group_norms(given, ALONE).values()]))
        float(norm)  # as the watch for spikes reads it
        scale = (CLIP / (norm + 1e-6)).clamp(max=1.0)
        for gradients in given.values():
            for gradient in gradients:
                gradient.mul_(scale)


def measure(material: Material, size: str, device: str, steps: int, blocks: str) -> dict[str, Any]:
    """The figures of a size and a kind of blocks; without recomputation where that fits."""
    reason = ""
    for recomputes in (False, True):
        arithmetic = nullcontext() if blocks == "free" else exact_arithmetic(torch.get_num_threads())
        try:
            with arithmetic:
                return {"recomputes": recomputes, **_measure(material, size, device, steps, blocks, recomputes)}
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).split(". ")[0]
        gc.collect()
        torch.cuda.empty_cache()
    return {"not_measured": f"out of memory, with recomputed blocks too ({reason})"}


def _measure(material: Material, size: str, device: str, steps: int, blocks: str, recomputes: bool) -> dict[str, Any]:
    trained, batches = prepare(material, size, device, compiles=blocks != "eager", recomputes=recomputes), material.batches
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first_s = seconds(device, lambda: trained.step(batches))  # with all that is compiled
    losses = [trained.step(batches) for _ in range(WARM_UP - 1)]
    times = [seconds(device, lambda: losses.append(trained.step(batches))) for _ in range(steps)]
    peak_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else None
    step_s, nominal = statistics.median(times), nominal_of(device)
    tokens = sum(batch.num_tokens for batch in batches)
    phases = Phases(device)
    trained.step(batches, phases)
    stall_s = stalls(trained, device)
    return {
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "tokens": tokens,
        "first_step_s": first_s,
        "step_s": step_s,
        "fastest_step_s": min(times),
        "tokens_per_s": tokens / step_s,
        "flops": material.flops[size],
        "mfu": None if nominal is None else material.flops[size] / step_s / nominal,
        "peak_bytes": peak_bytes,
        "losses": losses,
        "phases_s": phases.seconds | {"hearing, of forward": _hearing_s(trained, batches, device)},
        **(_kernels(trained, batches, step_s) if device == "cuda" else {}),
        "stalls_s": stall_s,
        "checkpoint_bytes": sum(t.numel() * t.element_size() for name, t in moving_tensors(trained, device).items()),
    }


def prepare(material: Material, size: str, device: str, *, compiles: bool, recomputes: bool) -> Trained:
    """A drawn model of the size, all of it trained but what only hears. Raises ValueError where it hears other mels."""
    config = model_config(size)
    if config.encoder.num_mels != material.num_mels:
        raise ValueError(f"size {size!r} hears {config.encoder.num_mels} mel bands, the material has {material.num_mels}")
    torch.manual_seed(0)
    with torch.device(device):
        model = StepAudio2(config, material.rows, 1)  # of the labels of CTC none is needed
    model.model.recomputes = recomputes
    if compiles:
        model.model.compile_blocks()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(list(trained.values()), lr=1e-5, betas=(0.9, 0.95), fused=True)
    return Trained(model, optimizer, trained, torch.device(device))


def stalls(trained: Trained, device: str) -> list[float]:
    """Seconds that the loop stands still for each of several checkpoints: the copies, which a thread writes while it goes on."""
    copies, parts, ranks = TensorCopies(), {"policy": trained}, Ranks(0, 1, torch.device(device))
    return [seconds(device, lambda: copies.take(run_tensors(parts, ranks), still_names(parts))) for _ in range(SAVES)]


def moving_tensors(trained: Trained, device: str) -> Mapping[str, torch.Tensor]:
    """What a checkpoint copies."""
    parts = {"policy": trained}
    still = still_names(parts)
    tensors = run_tensors(parts, Ranks(0, 1, torch.device(device)))
    return {name: tensor for name, tensor in tensors.items() if name not in still}


def _hearing_s(trained: Trained, batches: tuple[Batch, ...], device: str) -> float:
    """Encoder and adaptor of all batches."""
    moved = [on_device(batch, trained.device) for batch in batches]

    def hear() -> None:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            for batch in moved:
                features(trained.model, batch.heard, batch.features_P)

    return usual_seconds(device, hear, 3, warm_up=1)


def _kernels(trained: Trained, batches: tuple[Batch, ...], step_s: float) -> dict[str, Any]:
    """Milliseconds of one step by kind of kernel and by kernel, and the share of a usual step that the device is at work.

    Empty with a reason where the profiler cannot work on this machine.
    """
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            trained.step(batches)
            torch.cuda.synchronize()
        events = [(event.key, event.self_device_time_total / 1000, event.count) for event in profiled.key_averages()]
    except RuntimeError as error:
        return {"kernels": [], "kernels_not_measured": str(error)}
    kinds: dict[str, float] = defaultdict(float)
    for name, took_ms, _ in events:
        kinds[kind_of(name)] += took_ms
    return {
        "busy": sum(kinds.values()) / 1000 / step_s,
        "launches": sum(count for *_, count in events),
        "kinds_ms": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "kernels": sorted(events, key=lambda event: -event[1])[:KERNELS],
    }


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    return next((kind for kind, marks in KINDS.items() if any(mark in name for mark in marks)), "elementwise and others")
