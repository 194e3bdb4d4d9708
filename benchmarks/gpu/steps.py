"""Steps of the trainer over the material: how long they take, what share of the device's nominal speed that is, how much memory."""

from __future__ import annotations

import gc
import os
import statistics
import time
from dataclasses import dataclass

import torch

from benchmarks.gpu.material import Material
from training.attention import varlen_kernel
from training.batches import Batch, on_device
from training.config import model_config
from training.model import StepAudio2
from training.objectives import token_sums
from training.ranks import Ranks
from training.tensors import TensorCopies, run_tensors, still_names

# Dense bfloat16 by data sheet, as in training/machines.py, which needs more than torch.
NOMINAL_FLOPS_PER_S = {"a100": 312e12, "h100": 989e12, "h200": 989e12}
WARM_UP, SAVES = 2, 3
FROZEN = ("encoder.", "ctc_head.")


@dataclass
class Trained:
    """A model and what moves it, as checkpoints know them (``training.tensors.Part``)."""

    model: StepAudio2
    optimizer: torch.optim.Optimizer
    trained: dict[str, torch.nn.Parameter]

    def step(self, batches: list[Batch]) -> float:
        """One step of ``StageTrainer`` in bfloat16, without what it reports: the loss by weight."""
        self.optimizer.zero_grad(set_to_none=True)
        weight, loss = sum(batch.weight for batch in batches), 0.0
        for batch in batches:
            with torch.autocast(batch.ids_BT.device.type, torch.bfloat16, cache_enabled=False):
                sums = token_sums(self.model, batch)
            (sums.loss / weight).backward()
            loss += float(sums.loss) / weight
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        self.optimizer.step()
        return loss


def head(material: Material, device: str) -> list[str]:
    """What is measured, and on what."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    way = (
        "varlen"
        if device == "cuda" and varlen_kernel() is not None
        else "FlexAttention"
        if device == "cuda"
        else "SDPA by document"
    )
    return [f"{name}, torch {torch.__version__}, attention in bfloat16: {way}; a step is {material.source}", ""]


def row(material: Material, size: str, device: str, steps: int, *, compiles: bool) -> str:
    """A row of the table; without recomputation where that fits."""
    blocks = "compiled" if compiles else "eager"
    for recomputes in (False, True):
        try:
            found = measure(material, size, device, steps, compiles=compiles, recomputes=recomputes)
        except torch.cuda.OutOfMemoryError:
            continue
        finally:
            gc.collect()
            torch.cuda.empty_cache()
        return f"| {size} | {blocks}{', recomputed' if recomputes else ''} | {found}"
    return f"| {size} | {blocks} | not measured: out of memory | | | | |"


def measure(material: Material, size: str, device: str, steps: int, *, compiles: bool, recomputes: bool) -> str:
    """The figures of a row. Raises torch.cuda.OutOfMemoryError."""
    exact()
    trained = prepare(material, size, device, compiles=compiles, recomputes=recomputes)
    batches = [on_device(batch, torch.device(device)) for batch in material.batches]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [seconds(device, lambda: trained.step(batches)) for _ in range(WARM_UP + steps)][WARM_UP:]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    step_s, nominal = statistics.median(times), nominal_of(device)
    first, *later = stalls(trained, device)
    tokens = sum(batch.num_tokens for batch in batches) / step_s
    mfu = "not measured" if nominal is None else f"{material.flops[size] / step_s / nominal:.1%}"
    memory = "not measured" if peak is None else f"{peak:.1f}"
    return f"{1000 * step_s:.0f} | {tokens:,.0f} | {mfu} | {memory} | {first:.2f}, {max(later):.2f} |"


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
    return Trained(model, torch.optim.AdamW(list(trained.values()), lr=1e-5, betas=(0.9, 0.95), fused=True), trained)


def stalls(trained: Trained, device: str) -> list[float]:
    """Seconds that the loop stands still for each of several checkpoints: the copies, which a thread writes while it goes on."""
    copies, parts, ranks = TensorCopies(), {"policy": trained}, Ranks(0, 1, torch.device(device))
    return [seconds(device, lambda: copies.take(run_tensors(parts, ranks), still_names(parts))) for _ in range(SAVES)]


def seconds(device: str, work: object) -> float:
    """That some work takes, to the end of what it began on the device."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    began = time.perf_counter()
    work()  # type: ignore[operator]
    synchronize()
    return time.perf_counter() - began


def nominal_of(device: str) -> float | None:
    """The GPU's operations a second by its name; None for one that is not known, and for a CPU."""
    name = torch.cuda.get_device_name().lower() if device == "cuda" else ""
    return next((speed for gpu, speed in NOMINAL_FLOPS_PER_S.items() if gpu in name), None)


def exact() -> None:
    """As ``training.device.exact_arithmetic`` has it on CUDA."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
