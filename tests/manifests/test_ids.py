from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.ids import clip_id, digest_blocks, digest_bytes, digest_json, input_id, new_attempt_id, recording_id

RECORDING = bytes(range(16))


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_digest_does_not_depend_on_the_blocks(blocks: list[bytes]) -> None:
    assert digest_blocks(blocks) == digest_bytes(b"".join(blocks))


def test_digest_of_json_ignores_key_order() -> None:
    assert digest_json({"a": 1, "b": [2, "ä"]}) == digest_json({"b": [2, "ä"], "a": 1})
    assert digest_json({"a": 1}) != digest_json({"a": "1"})


def test_not_a_number_has_no_digest() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_json({"a": float("nan")})


def test_ids_are_what_corpora_on_disk_hold() -> None:
    # Golden: changing these would orphan every corpus that was ever written.
    assert digest_bytes(b"stepwell").hex() == "80fe227bf115386246f705b3dacb1b8b"
    assert clip_id(RECORDING, 1, 16_000, 0, 48_000).hex() == "08b378973c1a885aaf641c7152f492f5"
    assert input_id("s3://bucket/a.wav", 12, "etag").hex() == "58f36951e256445ac50078b64455ebdb"


@given(st.integers(0, 3), st.sampled_from([8_000, 16_000]), st.integers(0, 99), st.integers(100, 200))
def test_every_part_of_a_clip_counts(channel: int, rate: int, start: int, end: int) -> None:
    key = (RECORDING, channel, rate, start, end)
    others = [
        (bytes(16), channel, rate, start, end),
        (RECORDING, channel + 1, rate, start, end),
        (RECORDING, channel, rate + 1, start, end),
        (RECORDING, channel, rate, start + 1, end),
        (RECORDING, channel, rate, start, end + 1),
    ]
    assert clip_id(*key) == clip_id(*key)
    assert len({clip_id(*key), *(clip_id(*other) for other in others)}) == 6


def test_a_changed_file_is_a_new_input() -> None:
    assert input_id("a", 1, "x") != input_id("a", 1, "y") != input_id("a", 2, "y")


def test_recording_id_wants_a_digest() -> None:
    assert recording_id(RECORDING) == RECORDING
    with pytest.raises(ValueError, match="16"):
        recording_id(b"short")


def test_attempts_differ() -> None:
    assert len({new_attempt_id() for _ in range(50)}) == 50
