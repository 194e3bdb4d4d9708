"""Batches that travel to a machine with a GPU: one file that torch alone reads.

{"rows", "num_mels", "source", "work": {size: {"needed", "recomputed"}}, "batches": [{...}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.attention import DocumentSpans
from training.batches import Batch, HeardBatch

FORMAT = 1
FILE = Path(__file__).parent / "material.pt"  # ignored by git
TENSORS = ("ids_BT", "kinds_BT", "weights_BT", "positions_BT", "heard_BT", "targets_N", "features_P")


@dataclass(frozen=True)
class Material:
    """What is trained on."""

    rows: int  # of the vocabulary
    num_mels: int
    source: str  # for people: what the documents are
    flops: Mapping[
        str, float
    ]  # by size of the model: that a step over all batches needs, masked attention and frozen parts counted
    batches: tuple[Batch, ...]


def save(material: Material, path: Path = FILE) -> None:
    """Mel spectra become float16: half the file, and no speed depends on their last bits."""
    batches = [
        {name: getattr(batch, name) for name in TENSORS}
        | {"spans": [list(row) for row in batch.spans.rows], "weight": batch.weight, "heard": [_plain(h) for h in batch.heard]}
        for batch in material.batches
    ]
    head = {"format": FORMAT, "rows": material.rows, "num_mels": material.num_mels, "source": material.source}
    torch.save({**head, "flops": dict(material.flops), "batches": batches}, path)


def load(path: Path = FILE) -> Material:
    """Raises ValueError for a file of another format, OSError where there is none."""
    found = torch.load(path, weights_only=True)
    if found.get("format") != FORMAT:
        raise ValueError(f"{path} has format {found.get('format')!r}, this reads {FORMAT}; make it anew")
    return Material(
        rows=found["rows"],
        num_mels=found["num_mels"],
        source=found["source"],
        flops=found["flops"],
        batches=tuple(_batch(row) for row in found["batches"]),
    )


def _plain(heard: Any) -> dict[str, torch.Tensor]:
    return {"mels": heard.mels_ACM.half(), "num_valid": heard.num_valid_A, "num_patches": heard.num_patches_A}


def _batch(row: Mapping[str, Any]) -> Batch:
    return Batch(
        document_ids=(),
        spans=DocumentSpans(tuple(tuple(lengths) for lengths in row["spans"])),
        weight=row["weight"],
        heard=tuple(HeardBatch(h["mels"].float(), h["num_valid"], h["num_patches"]) for h in row["heard"]),
        **{name: row[name] for name in TENSORS},
    )
