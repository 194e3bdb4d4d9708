"""Columns that follow from the turns of documents, held against what plain Python makes of the same rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from manifests.schema import DOCUMENTS
from manifests.turns import DERIVED, clips_of, derived

IDS = st.integers(0, 9).map(lambda number: bytes([number] * 16))
CLIPS = st.lists(st.fixed_dictionaries({"clip_id": IDS, "num_samples": st.integers(0, 9)}), max_size=3)
SPOKEN = st.fixed_dictionaries({"text": st.sampled_from(["a", "b c", None]), "recording_id": IDS | st.none(), "clips": CLIPS})


@given(st.lists(st.lists(SPOKEN, min_size=1, max_size=4), max_size=5), st.integers(0, 5))
def test_derived_columns_are_what_the_turns_say(documents: list[list[dict[str, Any]]], start: int) -> None:
    kind = DOCUMENTS.field("turns").type
    whole = pa.chunked_array([pa.array(documents, kind)])
    column, left = whole.slice(start), documents[start:]  # as a filter leaves it: not from the beginning
    clips = [[clip["clip_id"] for turn in turns for clip in turn["clips"]] for turns in left]
    recordings = [[turn["recording_id"] for turn in turns if turn["recording_id"]] for turns in left]
    texts = [[turn["text"] for turn in turns] for turns in left]
    expected = {
        "num_turns": [len(turns) for turns in left],
        "text": [None if None in said else "\n".join(said) for said in texts],
        "clip_id": [next(iter(ids), None) for ids in clips],
        "recording_id": [next(iter(ids), None) for ids in recordings],
        "clip_ids": clips,
        "recording_ids": recordings,
    }
    assert expected.keys() == {*DERIVED.names}
    for name, values in expected.items():
        found = derived(column, name)
        assert (found.to_pylist(), found.type) == (values, DERIVED.field(name).type)
    assert clips_of(column)["clip_id"].to_pylist() == [identity for ids in clips for identity in ids]
