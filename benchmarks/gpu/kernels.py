"""The kernel of attention by itself, at the heads of every size: what it gives beside plain attention in float32, and its time.

Errors are norms of differences by norms of what is right; bfloat16 leaves some 1e-3 to 1e-2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.clock import usual_seconds
from benchmarks.gpu.material import Material
from training.attention import DocumentSpans, attend, attend_by_document
from training.config import model_config

LIMIT = 2e-2
NAMES = ("output", "gradient of q", "gradient of k", "gradient of v")

Tensors = tuple[torch.Tensor, ...]


def compare(material: Material, device: str, sizes: Sequence[str]) -> dict[str, Any]:
    """By size: errors by name, whether all are within the limit, and milliseconds forward and backward."""
    spans = material.batches[0].spans
    return {"limit": LIMIT, "sizes": {size: _compare(size, spans, material.batches[0].ids_BT.shape[1], device) for size in sizes}}


def _compare(size: str, spans: DocumentSpans, width: int, device: str) -> dict[str, Any]:
    config = model_config(size).decoder
    torch.manual_seed(0)
    shapes = [(config.num_heads, width), (config.num_kv_heads, width), (config.num_kv_heads, width)]
    # As projections give them: positions lie one behind the other, heads within them.
    wide = tuple(
        torch.randn(len(spans.rows), length, heads, config.head_width, device=device).transpose(1, 2) for heads, length in shapes
    )
    direction = torch.randn_like(wide[0])
    right = _outcome(wide, spans, direction, by_document=True)
    narrow = tuple(x.bfloat16() for x in wide)
    found = _outcome(narrow, spans, direction.bfloat16(), by_document=False)
    errors = {
        name: float((other.float() - one).norm() / one.norm()) for name, one, other in zip(NAMES, right, found, strict=True)
    }
    took_s = usual_seconds(device, lambda: _outcome(narrow, spans, direction.bfloat16(), by_document=False), 5)
    agrees = all(error <= LIMIT for error in errors.values())
    return {"errors": errors, "agrees": agrees, "forward_backward_ms": 1000 * took_s}


def _outcome(inputs: Tensors, spans: DocumentSpans, direction: torch.Tensor, *, by_document: bool) -> Tensors:
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    mixed = (attend_by_document if by_document else attend)(q, k, v, spans)
    return (mixed.detach(), *torch.autograd.grad(mixed, (q, k, v), direction))
