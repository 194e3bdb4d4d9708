from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.clip_texts import clip_texts, first_texts, num_untold, text_columns, text_needs

TEXTS = st.none() | st.sampled_from(["", "  ", "\u3000\n", "a", " a b\t", "\u3000你好 "])
ROWS = st.lists(st.tuples(st.integers(0, 3), TEXTS, TEXTS), max_size=8)


def table_of(rows):
    recordings, sources, heard = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "clip.recording_id": pa.array([bytes([r]) * 16 for r in recordings], pa.binary(16)),
            "input.text": pa.array(sources, pa.string()),
            "asr.text": pa.array(heard, pa.string()),
        }
    )


def stripped(text):
    return (text or "").strip() or None


@given(ROWS, st.sampled_from([("source",), ("asr",), ("source", "asr"), ("asr", "source"), ()]))
def test_the_first_origin_that_has_text_gives_it_and_a_source_only_to_a_single_clip(rows, origins):
    numbers = [recording for recording, _, _ in rows]
    expected = []
    for recording, source, heard in rows:
        texts = {"source": stripped(source) if numbers.count(recording) == 1 else None, "asr": stripped(heard)}
        expected.append(next(((texts[origin], origin) for origin in origins if texts[origin]), (None, None)))
    texts, named = first_texts(table_of(rows), origins)
    assert list(zip(texts.to_pylist(), named.to_pylist(), strict=True)) == expected
    untold = {recording for recording, source, _ in rows if stripped(source) and numbers.count(recording) > 1}
    assert num_untold(table_of(rows)) == len(untold)


@pytest.mark.parametrize(
    ("origins", "needs"), [(("source", "asr"), ["input.text", "asr.text", "clip.recording_id"]), (("asr",), ["asr.text"])]
)
def test_only_a_source_s_text_needs_to_know_the_recordings(origins, needs):
    assert text_needs(text_columns(origins)) == needs
    assert clip_texts(table_of([(0, " x ", None)]).select(needs), text_columns(origins)[-1]).null_count == 1
