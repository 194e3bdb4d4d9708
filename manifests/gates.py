"""Gates: where a costly part runs. What a gate leaves out is a null row with status ``gated``, never a lost one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from manifests.errors import RequestError
from manifests.recipes import RecipeModel

# Columns of the clip itself that gates and filters may name.
CLIP_COLUMNS = ("duration_s", "speech_share", "overlap_share", "longest_pause_s")


class SpanGate(RecipeModel):
    """Run on channels in which the segmenter ``spans`` found more than ``min_total_s`` of spans."""

    spans: str
    min_total_s: float = Field(default=0.0, ge=0)


class ColumnGate(RecipeModel):
    """Run on clips whose column lies in ``[min, max]``; ``on_null`` says what an unknown value means."""

    column: str = Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")  # layer.column, or clip.<derived column>
    min: float | None = None
    max: float | None = None
    on_null: bool = True

    @model_validator(mode="after")
    def _bounded(self) -> ColumnGate:
        if self.min is None and self.max is None:
            raise ValueError(f"gate on {self.column!r} has neither min nor max; it would leave nothing out")
        return self

    @property
    def layer(self) -> str | None:
        """The layer that it reads; None for a column of the clip itself."""
        layer = self.column.split(".")[0]
        return None if layer == "clip" else layer

    @property
    def is_of_clip_set(self) -> bool:
        """Whether what it reads may differ between two clip sets that hold the same clip."""
        return self.layer is None and self.column != "clip.duration_s"

    def check(self, columns: pa.Schema) -> None:
        """Raises RequestError where the gate's column is not among these, or holds no numbers."""
        layer, name = self.column.split(".")
        if name not in columns.names:
            raise RequestError(f"gate: column {self.column!r} does not exist; {layer} has {', '.join(columns.names)}")
        kind = columns.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise RequestError(f"gate: column {self.column!r} holds {kind}; min and max bound numbers, name another column")

    def open_for(self, clips: pa.Table, layers: Mapping[str, pa.Table]) -> np.ndarray:
        """Bool ``[num_clips]``: where the part runs. Raises RequestError as ``check`` does."""
        layer, name = self.column.split(".")
        if layer != "clip":
            self.check(layers[layer].schema)  # a layer that was there before the recipe is known only now
        values = clip_column(clips, name) if layer == "clip" else layers[layer].column(name)
        floats = np.asarray(pc.fill_null(pc.cast(values, pa.float64()), np.nan))
        low, high = -np.inf if self.min is None else self.min, np.inf if self.max is None else self.max
        return np.where(np.isnan(floats), self.on_null, (floats >= low) & (floats <= high))


class PartConfig(RecipeModel):
    """What the configs of all parts share."""

    def identity(self) -> dict[str, Any]:
        """What the part's fingerprint covers: all but its gate, which changes where it runs and not what it says."""
        return self.model_dump(mode="json", exclude={"when"})


class SegmenterConfigBase(PartConfig):
    """A segmenter's config; ``when`` says on which channels it runs (null: on all)."""

    when: SpanGate | None = None


class AnnotatorConfigBase(PartConfig):
    """An annotator's config; ``when`` says on which clips it runs (null: on all)."""

    when: ColumnGate | None = None


def clip_column(clips: pa.Table, name: str) -> pa.Array:
    """One of CLIP_COLUMNS, float64 ``[num_clips]``."""
    lengths = np.asarray(clips["end_sample"]) - np.asarray(clips["start_sample"])
    if name == "duration_s":
        return pa.array(lengths / np.maximum(1, np.asarray(clips["sample_rate_hz"])))
    if name == "longest_pause_s":
        return _longest_pauses_s(clips)
    part = {"speech_share": "speech_samples", "overlap_share": "overlap_samples"}[name]
    return pa.array(np.asarray(clips[part]) / np.maximum(1, lengths))


def _longest_pauses_s(clips: pa.Table) -> pa.Array:
    """``longest_pause_s`` of every clip at once: an audit has a hundred million of them."""
    spans = clips["speech_spans"].combine_chunks()
    of, flat = np.asarray(pc.list_parent_indices(spans)), spans.flatten()
    starts, ends = (np.asarray(pc.struct_field(flat, name)) for name in ("start_sample", "end_sample"))
    is_next = of[1:] == of[:-1]
    longest = np.zeros(len(spans), np.int64)
    np.maximum.at(longest, of[1:][is_next], (starts[1:] - ends[:-1])[is_next])
    return pa.array(longest / np.maximum(1, np.asarray(clips["sample_rate_hz"])))


def longest_pause_s(clip: Mapping[str, Any]) -> float:
    """Longest stretch of a clip (a CLIPS row) between two speech spans, in seconds; 0 with fewer than two."""
    pauses = (after["start_sample"] - before["end_sample"] for before, after in itertools.pairwise(clip["speech_spans"]))
    return max(pauses, default=0) / max(1, int(clip["sample_rate_hz"]))
