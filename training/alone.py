"""The documents of a batch, each as a batch of its own: what a step computed of all, computed of one.

Shapes: as in ``batches``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from training.attention import DocumentSpans
from training.batches import Batch, CtcBatch, HeardBatch, HeardPieces, collate, tag_weight


def each_alone(batch: Batch | CtcBatch) -> Iterator[Batch | CtcBatch]:
    """One batch a document, in the order of ``document_ids``. Padding of its audio stays, which moves no more than last bits."""
    return _each_labelled(batch) if isinstance(batch, CtcBatch) else _each_packed(batch)


def nothing() -> Batch:
    """A batch of no document: what a rank works through while another one works through a document of its own."""
    return collate([[]], 1, 1, 0)


def _each_labelled(batch: CtcBatch) -> Iterator[CtcBatch]:
    for place, key in enumerate(batch.document_ids):
        own = slice(place, place + 1)
        num_labels = int(batch.num_labels_A[place])
        yield replace(
            batch,
            document_ids=(key,),
            labels_AL=batch.labels_AL[own, :num_labels],
            num_labels_A=batch.num_labels_A[own],
            weights_A=batch.weights_A[own],
            tags_GA=batch.tags_GA[:, own],
            weight=float(batch.weights_A[place]) * num_labels + tag_weight(batch.tags_GA[:, own], batch.tag_weights),
            heard=_piece(batch.heard, own),
        )


def _each_packed(batch: Batch) -> Iterator[Batch]:
    # Whose piece each feature is of: groups of pieces of like lengths, one behind the other.
    counts_A = torch.cat([torch.zeros(0, dtype=torch.int64), *(heard.num_patches_A for heard in batch.heard)])
    ends_A = counts_A.cumsum(0)
    pieces = [piece for heard in batch.heard for piece in _pieces(heard)]
    documents, num_heard = iter(batch.document_ids), 0
    for row, lengths in enumerate(batch.spans.rows):
        start = 0
        for length in lengths:
            own = slice(start, start + length)
            num_own = int(batch.heard_BT[row, own].sum())
            # Every piece of a document stands in it as a whole, in order.
            features_P = batch.features_P[num_heard : num_heard + num_own]
            chosen = torch.unique_consecutive(torch.searchsorted(ends_A, features_P, right=True)).tolist()
            yield _part(batch, row, own, tuple(pieces[number] for number in chosen), next(documents))
            start, num_heard = start + length, num_heard + num_own


def _part(batch: Batch, row: int, own: slice, heard: tuple[HeardBatch | HeardPieces, ...], key: str) -> Batch:
    weights_BT = batch.weights_BT[row : row + 1, own]
    return Batch(
        document_ids=(key,),
        ids_BT=batch.ids_BT[row : row + 1, own],
        kinds_BT=batch.kinds_BT[row : row + 1, own],
        weights_BT=weights_BT,
        positions_BT=batch.positions_BT[row : row + 1, own],
        heard_BT=batch.heard_BT[row : row + 1, own],
        spans=DocumentSpans(((own.stop - own.start,),)),
        weight=float(weights_BT.sum(dtype=torch.float64)),
        targets_N=weights_BT.flatten().nonzero().flatten(),
        heard=heard,
        features_P=torch.arange(sum(int(piece.num_patches_A.sum()) for piece in heard)),
    )


def _pieces(heard: HeardBatch | HeardPieces) -> list[HeardBatch | HeardPieces]:
    """Each piece as a group of its own."""
    owns = [slice(place, place + 1) for place in range(len(heard.num_patches_A))]
    if isinstance(heard, HeardBatch):
        return [_piece(heard, own) for own in owns]
    return [HeardPieces(heard.slots[own], heard.mels_A[own], heard.num_patches_A[own]) for own in owns]


def _piece(heard: HeardBatch, own: slice) -> HeardBatch:
    return HeardBatch(heard.mels_ACM[own], heard.num_valid_A[own], heard.num_patches_A[own])
