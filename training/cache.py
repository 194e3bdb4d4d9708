"""Keys and values of the positions that a decoder has seen, so that generation works on new ones only.

Shapes: B rows, T new positions, C capacity, H heads, K key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from manifests.errors import ContractError
from training.attention import DocumentSpans, attend, for_each_head
from training.config import DecoderConfig


class KeyValueCache:
    """One document a row, each as long as it is: position p of a row lies at place p, whatever its neighbours' lengths.

    ``keys`` and ``values``: ``[B, K, C, W]`` of each layer; ``lengths``: positions held by row. Memory: 2 * layers * B * K * C * W
    numbers.
    """

    def __init__(self, config: DecoderConfig, num_rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (num_rows, config.num_kv_heads, capacity, config.head_width)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.lengths = [0] * num_rows
        self.capacity = capacity

    def admit(self, spans: DocumentSpans, width: int) -> CacheStep:
        """Take in ``width`` positions a row, of which ``spans`` says how many are new to each row; the rest is padding.

        Raises ContractError when a row would pass the capacity or has more than one document.
        """
        if len(spans.rows) != len(self.lengths) or any(len(row) > 1 for row in spans.rows):
            raise ContractError(
                f"cache of {len(self.lengths)} rows is given spans {spans.rows}: one document a row, for every row"
            )
        before, after = self.lengths, [held + sum(row) for held, row in zip(self.lengths, spans.rows, strict=True)]
        if max(after) > self.capacity:
            raise ContractError(f"cache has room for {self.capacity} positions a row, {max(after)} are wanted: make it larger")
        self.lengths = after
        return CacheStep(self, spans, before, width)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which are numbered anew in the order given."""
        index = torch.tensor(rows, device=self.keys[0].device)
        self.keys = [keys.index_select(0, index) for keys in self.keys]
        self.values = [values.index_select(0, index) for values in self.values]
        self.lengths = [self.lengths[row] for row in rows]


class CacheStep:
    """One pass of a decoder over what a cache has admitted."""

    def __init__(self, cache: KeyValueCache, spans: DocumentSpans, before: list[int], width: int) -> None:
        self._cache, self._spans = cache, spans
        device = cache.keys[0].device
        new_BT = torch.arange(width) < torch.tensor([sum(row) for row in spans.rows])[:, None]
        places_BT = torch.tensor(before)[:, None] + torch.arange(width)
        self._rows, self._columns = (index.to(device) for index in new_BT.nonzero(as_tuple=True))
        self._places = places_BT[new_BT].to(device)
        self._reach = max(cache.lengths)
        # What lies behind a position's own place is empty, or padding of a longer row. Where nothing is held yet, spans say it all.
        self._sees_B1TC = (torch.arange(self._reach) <= places_BT[:, None, :, None]).to(device) if any(before) else None

    def attend(self, layer: int, q_BHTW: torch.Tensor, k_BKTW: torch.Tensor, v_BKTW: torch.Tensor) -> torch.Tensor:
        """As ``attention.attend``, over all that the rows hold by now: ``[B, H, T, W]``, anything in padding."""
        keys_BKCW, values_BKCW = self._cache.keys[layer], self._cache.values[layer]
        keys_BKCW[self._rows, :, self._places] = k_BKTW[self._rows, :, self._columns]
        values_BKCW[self._rows, :, self._places] = v_BKTW[self._rows, :, self._columns]
        if self._sees_B1TC is None:
            return attend(q_BHTW, k_BKTW, v_BKTW, self._spans)
        k_BHCW, v_BHCW = (for_each_head(x[:, :, : self._reach], q_BHTW.shape[1]) for x in (keys_BKCW, values_BKCW))
        return F.scaled_dot_product_attention(q_BHTW, k_BHCW, v_BHCW, attn_mask=self._sees_B1TC)
