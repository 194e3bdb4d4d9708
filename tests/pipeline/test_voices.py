"""Voices of a unit: local speakers by their labels, unlabelled channels by ear."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from manifests.ids import digest_bytes
from pipeline.voices import FULL_WEIGHT_S, Embeddings, find_voices

ONE, OTHER = [1.0, 0.0], [0.0, 1.0]


def voices(*rows: tuple[str, int, str | None, list[float] | None, float]):
    """``find_voices`` of clips (recording, channel, label, embedding, seconds) at 0.8."""
    recordings, channels, labels, vectors, seconds = zip(*rows, strict=True)
    ids = [digest_bytes(bytes([number])) for number in range(len(rows))]
    columns = {"recording_id": [name.encode() for name in recordings], "channel": channels, "speaker_label": labels}
    clips = pa.table({"clip_id": ids, **columns})
    heard = [second if vector else None for vector, second in zip(vectors, seconds, strict=True)]
    layer = pa.table({"embedding": pa.array(vectors, pa.list_(pa.float32())), "embedded_s": pa.array(heard, pa.float32())})
    return find_voices(clips, Embeddings.of(layer), 0.8), ids


def test_a_label_is_a_voice_of_its_recording_and_channel():
    found, ids = voices(
        ("a", 0, "S0", ONE, 1), ("a", 0, "S1", OTHER, 1), ("a", 0, "S0", OTHER, 3), ("a", 1, "S0", ONE, 1), ("b", 0, "S0", ONE, 1)
    )
    assert found.of_clips.tolist() == [0, 1, 0, 2, 3]
    assert found.sounds.means[0] == pytest.approx([0.25, 0.75])  # weighted by seconds, and not normalised
    assert found.sounds.weights.tolist() == [4, 1, 1, 1]
    assert found.sounds.selves.tolist() == pytest.approx([10 / 16, 1, 1, 1])
    assert found.ids[0] == digest_bytes(ids[0] + ids[2])
    assert found.scenes == [(b"a", 0), (b"a", 0), (b"a", 1), (b"b", 0)]


def test_a_clip_without_a_vector_has_its_label_s_voice_and_a_label_without_one_is_none():
    found, _ = voices(("a", 0, "S0", ONE, 1), ("a", 0, "S0", None, 0), ("a", 0, "S1", None, 0))
    assert found.of_clips.tolist() == [0, 0, -1]
    assert len(found.ids) == 1


def test_an_unlabelled_channel_is_one_voice_as_long_as_its_clips_agree():
    alike, _ = voices(("a", 0, None, ONE, 1), ("a", 0, None, None, 0), ("a", 0, None, [0.8, 0.6], 1))
    assert alike.of_clips.tolist() == [0, 0, 0]
    unlike, _ = voices(("a", 0, None, ONE, 1), ("a", 0, None, OTHER, 2), ("a", 0, None, None, 0), ("a", 0, None, ONE, 1))
    assert unlike.of_clips.tolist() == [0, 1, -1, 0]  # who speaks in the third nobody knows
    assert unlike.scenes == [None, None]


def test_a_long_voice_weighs_no_more_than_half_a_minute():
    found, _ = voices(("a", 0, "S0", ONE, 3600))
    assert found.sounds.weights.tolist() == [FULL_WEIGHT_S]


def test_nobody_embedded_is_no_voice():
    found, _ = voices(("a", 0, None, None, 0))
    assert (found.of_clips.tolist(), found.ids, len(found.sounds)) == ([-1], [], 0)


def test_vectors_of_fixed_size_are_read_too():
    fixed = pa.array([ONE, None, OTHER], pa.list_(pa.float32(), 2))
    found = Embeddings.of(pa.table({"embedding": fixed, "embedded_s": pa.array([1.0, None, 1.0], pa.float32())}))
    assert found.rows.tolist() == [0, -1, 1]
    np.testing.assert_array_equal(found.vectors, [ONE, OTHER])
