"""The model over ranks: what writes is sharded by FSDP2, what hears is whole on each.

A rank whose documents have no audio runs neither encoder nor adaptor. So no collective may stand in their forward or backward, or such a
rank would miss it and all would hang: their gradients are summed behind the backward pass, where every rank comes by. Embedding,
blocks and head run on every rank in every micro-batch, and there FSDP gathers weights and reduces gradients as it goes.

Gradients are sums over ranks, never means: the trainer divides by the weight of all targets of all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from training.model import GROUP_PREFIXES, StepAudio2
from training.ranks import Ranks

SHARDED = ("decoder", "embedding", "head")  # groups of the model that write


def shard(model: StepAudio2, ranks: Ranks) -> None:
    """Leave to this rank its part of what writes, in place; alone nothing is changed. Every rank must hold the same weights.

    Behind it ``hidden`` is the way into the decoder: the head's weight is whole from there to the end of the backward pass, or to
    ``reshard``.
    """
    if ranks.world == 1:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    prefixes = tuple(prefix for group in SHARDED for prefix in GROUP_PREFIXES[group])
    hearing = {parameter for name, parameter in model.named_parameters() if not name.startswith(prefixes)}
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    embedding: Any = fully_shard(model.model.embed_tokens, mesh=mesh)
    embedding.set_unshard_in_backward(False)  # its gradient does not read its rows
    # The last norm and the head are the root's own, and a root stays whole behind its forward pass.
    fully_shard(model, mesh=mesh, ignored_params=hearing)
    register_fsdp_forward_method(model, "hidden")
    for module in _sharded_modules(model):
        # FSDP divides by the number of ranks unless told, and its AVG is a SUM on gloo in torch 2.8.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    model.model.register_forward_pre_hook(_always_backward)


def reshard(model: nn.Module) -> None:
    """Leave to each rank its part again, after evaluation: a forward pass without a backward leaves the head whole.

    What reads or changes parameters by name calls it first.
    """
    for module in _sharded_modules(model):
        module.reshard()


@contextmanager
def whole(parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """The parameter with all its rows, to be changed in place by every rank alike."""
    if not isinstance(parameter, DTensor):
        yield parameter
        return
    with torch.no_grad():
        rows = parameter.full_tensor()
    yield rows
    with torch.no_grad():
        # Each rank takes its own rows out of its own copy: nothing is sent.
        parameter.copy_(distribute_tensor(rows, parameter.device_mesh, parameter.placements, src_data_rank=None))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of it; all of it where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sum_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Gradients of parameters that are whole on every rank become their sums over ranks, the same bits on each.

    A rank that did not reach a parameter adds nothing; one that no rank reached keeps no gradient, as it would alone.
    """
    if ranks.world == 1 or not parameters:
        return
    num_reached = ranks.sum(torch.tensor([float(parameter.grad is not None) for parameter in parameters]))
    reached = [parameter for parameter, num in zip(parameters, num_reached.tolist(), strict=True) if num]
    if not reached:
        return
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in reached]
    summed = ranks.sum(torch.cat([gradient.flatten() for gradient in given]))
    for parameter, gradient in zip(reached, summed.split([p.numel() for p in reached]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def group_norms(gradients: dict[str, list[torch.Tensor]], ranks: Ranks) -> dict[str, torch.Tensor]:
    """Norm of each group's gradients over all ranks, the same bits on each: shards add up, what is whole counts once."""
    norms = {group: _norm([own(gradient) for gradient in given]) for group, given in gradients.items()}
    shared = [group for group in norms if group in SHARDED]
    if ranks.world > 1 and shared:
        parts = torch.stack([norms[group] for group in shared])
        summed = ranks.sum(parts.double().square()).sqrt().to(parts)  # float64, where no square of a finite norm overflows
        norms |= dict(zip(shared, summed, strict=True))
    return norms


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows in their own type, and over rows in float64: one float32 sum over a matrix of 30 million is 1.6e-3 short on a CPU."""
    values = [torch.linalg.vector_norm(g.flatten(1), dim=1) if g.ndim > 1 else g for g in gradients]
    return torch.linalg.vector_norm(torch.cat(values), dtype=torch.float64).to(values[0].dtype)


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _always_backward(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Send the backward pass through the whole decoder on every rank, where FSDP waits for all of them.

    With a frozen embedding it would stop short on a rank that heard nothing: none of the others' gradients reach what it read.
    """
    x_BTD, *rest = args
    if not torch.is_grad_enabled() or x_BTD.requires_grad:
        return None
    return (x_BTD.detach().requires_grad_(), *rest)
