"""Whose text a column holds.

A source's transcript speaks of the whole input: it is the text of a recording's single clip, and of none of several, which
would all say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SOURCE = "source"  # among the origins of a text, as recipes list them (``text_from``); any other is a layer's name
SOURCE_TEXT, RECORDING = "input.text", "clip.recording_id"


def text_columns(origins: Sequence[str]) -> list[str]:
    """Where the origins have their texts."""
    return [SOURCE_TEXT if origin == SOURCE else f"{origin}.text" for origin in origins]


def text_needs(columns: Sequence[str]) -> list[str]:
    """Columns of texts (full names, ``manifests.rows``), and what ``clip_texts`` must know besides."""
    return [*columns, *([RECORDING] if SOURCE_TEXT in columns else [])]


def clip_texts(table: pa.Table, column: str) -> pa.Array:
    """The texts of one column as the clips' own, stripped; null where there is none.

    ``table`` has ``text_needs`` and all clips of the recordings in it, as units and slices have.
    """
    texts = _told(table[column])
    return texts if column != SOURCE_TEXT else pc.if_else(_is_whole(table[RECORDING]), texts, pa.scalar(None, texts.type))


def first_texts(table: pa.Table, origins: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """(text, origin) a clip: of the origins the first that has text; null where none has. ``table`` as ``clip_texts`` needs it."""
    none = pa.nulls(table.num_rows, pa.string())
    texts = [clip_texts(table, column) for column in text_columns(origins)]
    named = [pc.if_else(pc.is_valid(text), origin, none) for origin, text in zip(origins, texts, strict=True)]
    return pc.coalesce(*texts, none), pc.coalesce(*named, none)


def num_untold(table: pa.Table) -> int:
    """Recordings of several clips that their source has a transcript of."""
    is_untold = pc.and_(pc.is_valid(_told(table[SOURCE_TEXT])), pc.invert(_is_whole(table[RECORDING])))
    return len(table[RECORDING].filter(is_untold).unique())


def _told(texts: pa.ChunkedArray) -> pa.Array:
    stripped = pc.utf8_trim_whitespace(texts.combine_chunks())
    return pc.if_else(pc.equal(stripped, ""), pa.scalar(None, stripped.type), stripped)


def _is_whole(recordings: pa.ChunkedArray) -> pa.Array:
    """Bool a clip: it is the only one of its recording."""
    codes = recordings.combine_chunks().dictionary_encode().indices.to_numpy()
    return pa.array(np.bincount(codes)[codes] == 1)
