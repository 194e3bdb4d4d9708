"""What follows from the turns of documents: columns that are read with DOCUMENTS and not stored beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import ID, field

# Of these alone the rest follows; a reader of ids does not read texts.
PATH = "turns.list.element."
MADE_FROM = {
    "num_turns": ("recording_id",),
    "text": ("text",),
    "clip_id": ("clips",),
    "recording_id": ("recording_id",),
    "clip_ids": ("clips",),
    "recording_ids": ("recording_id",),
}
DERIVED = pa.schema(
    [
        field("num_turns", pa.int32(), "turns"),
        field("text", pa.string(), "texts of the turns, a line each; null where a turn has none"),
        field("clip_id", ID, "the clip it was made from, of several the first; null of plain text"),
        field("recording_id", ID, "the recording that this clip is a span of"),
        field("clip_ids", pa.list_(ID), "the clips that its turns were made from"),
        field("recording_ids", pa.list_(ID), "the recordings that these are spans of, one a turn"),
    ]
)


def stored_paths(name: str) -> list[str]:
    """What to read of a manifest for a derived column."""
    return [f"{PATH}{part}" for part in MADE_FROM[name]]


def derived(turns: pa.ChunkedArray, name: str) -> pa.Array:
    """A column of DERIVED, from ``turns`` with at least the fields that it is made from."""
    made: dict[str, Callable[[pa.ListArray], pa.Array]] = {
        "num_turns": lambda turns: pc.cast(pc.list_value_length(turns), pa.int32()),
        "text": lambda turns: pc.binary_join(_of(turns, "text"), "\n"),
        "clip_id": lambda turns: _first(_clip_ids(turns)),
        "recording_id": lambda turns: _first(_known_recordings(turns)),
        "clip_ids": _clip_ids,
        "recording_ids": _known_recordings,
    }
    return made[name](turns.combine_chunks())


def clips_of(turns: pa.ChunkedArray) -> pa.Table:
    """``clip_id`` and ``num_samples`` of every clip of every document; one that serves several stands there as often."""
    clips = turns.combine_chunks().flatten().field("clips").flatten()
    return pa.table({name: clips.field(name) for name in ("clip_id", "num_samples")})


def _clip_ids(turns: pa.ListArray) -> pa.ListArray:
    """The clips of each document, one behind the other."""
    clips = _of(turns, "clips")
    of_turns = clips.flatten()
    lengths = np.diff(np.concatenate([[0], np.cumsum(pc.list_value_length(of_turns))])[_offsets(clips)])
    return _lists(lengths, of_turns.flatten().field("clip_id"))


def _known_recordings(turns: pa.ListArray) -> pa.ListArray:
    found = _of(turns, "recording_id")
    flat = found.flatten()
    is_known = np.concatenate([[0], np.cumsum(np.asarray(pc.is_valid(flat)))])
    return _lists(np.diff(is_known[_offsets(found)]), flat.drop_null())


def _first(lists: pa.ListArray) -> pa.Array:
    """The first of each list; null of an empty one."""
    has_some = pc.greater(pc.list_value_length(lists), 0)
    return lists.flatten().take(pc.if_else(has_some, pa.array(_offsets(lists)[:-1]), pa.scalar(None, pa.int64())))


def _of(turns: pa.ListArray, name: str) -> pa.ListArray:
    """A field of the turns, as a list a document."""
    return _lists(np.asarray(pc.list_value_length(turns)), turns.flatten().field(name))


def _offsets(lists: pa.ListArray) -> np.ndarray:
    """int64 [rows + 1], into what ``flatten`` gives."""
    return np.concatenate([[0], np.cumsum(np.asarray(pc.list_value_length(lists), np.int64))])


def _lists(lengths: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), values)
