from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from annotators.content import ContentConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.ids import digest_bytes


def content(audio: Audio, rate: int = MODEL_RATE_HZ) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [audio], [rate])
    return ContentConfig().build().annotate(batch).to_pylist()[0]


def stored(audio: Audio, container: str, subtype: str) -> Audio:
    """As it comes back from a lossless file."""
    file = io.BytesIO()
    soundfile.write(file, audio, MODEL_RATE_HZ, format=container, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def test_the_hash_is_the_digest_of_the_rate_and_the_16_bit_samples() -> None:
    audio = np.array([0.0, 0.5, -1.0, 32767 / 32768], np.float32)
    samples = np.array([0, 16384, -32768, 32767], "<i2").tobytes()
    assert content(audio)["pcm_hash"] == digest_bytes(b"16000:" + samples)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("WAV", "FLOAT")])
def test_the_hash_is_equal_for_equal_samples_in_any_lossless_file(conversation: Audio, container: str, subtype: str) -> None:
    audio = stored(conversation[:64_000], "WAV", "PCM_16")
    assert content(stored(audio, container, subtype))["pcm_hash"] == content(audio)["pcm_hash"]


def test_the_hash_tells_one_sample_one_step_and_the_rate_apart(conversation: Audio) -> None:
    audio = conversation[:64_000]
    louder = audio.copy()
    louder[1000] += 1 / 32768
    hashes = [content(audio), content(audio[1:]), content(louder), content(audio, 48_000)]
    assert len({row["pcm_hash"] for row in hashes}) == 4


def test_full_scale_does_not_wrap() -> None:
    assert content(np.full(100, 1.5, np.float32))["pcm_hash"] == content(np.full(100, 1.0, np.float32))["pcm_hash"]


def test_digital_silence_is_nobodys_content() -> None:
    row = content(np.full(MODEL_RATE_HZ, 1e-6, np.float32))
    assert row["status"] == "abstained"
    assert row["pcm_hash"] is row["acoustic_fingerprint"] is row["audible_frames"] is None


def test_a_clip_shorter_than_two_windows_has_a_hash_alone(conversation: Audio) -> None:
    row = content(conversation[120_000:126_000])
    assert row["pcm_hash"] is not None
    assert row["acoustic_fingerprint"] is None
    assert row["audible_frames"] == 0


def test_audible_frames_are_those_that_are_not_zero(conversation: Audio) -> None:
    audio = np.concatenate([conversation[120_000:184_000], np.zeros(3 * MODEL_RATE_HZ, np.float32)])
    row = content(audio)
    values = np.array(row["acoustic_fingerprint"])
    assert len(values) == (7 * 5000 - 2048) // 120  # one a 24 ms of 7 s at 5 kHz, less the first window
    assert row["audible_frames"] == np.count_nonzero(values)
    assert not values[-100:].any()
