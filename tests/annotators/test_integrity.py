from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.integrity import MEAN_PITCH_HZ, MEAN_RATE_HZ, IntegrityConfig, speed_ratio
from annotators.prosody import ProsodyConfig
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch

RECORDING = {"is_interleaved": False, "bandwidth_hz": 7900.0, "source_sample_rate_hz": MODEL_RATE_HZ}


def facts(audio: Audio, recording: dict[str, Any] | None = None) -> dict[str, Any]:
    clips = pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))})
    prosody = ProsodyConfig().build().annotate(ClipBatch(clips, [audio], [MODEL_RATE_HZ]))
    layers = {"prosody": prosody, "recording": pa.Table.from_pylist([recording or RECORDING])}
    return IntegrityConfig().build().annotate(ClipBatch(clips, [audio], [MODEL_RATE_HZ], layers)).to_pylist()[0]


@pytest.fixture(scope="module")
def speech(conversation: Audio) -> Audio:
    return conversation[120_000:240_000]


def test_speech_is_as_it_should_be(speech: Audio) -> None:
    found = facts(speech)
    assert (found["is_garbled"], found["is_wrong_speed"], found["is_narrowband"]) == (False, False, False)
    assert 0.6 < found["speed_ratio"] < 1.6


@pytest.mark.parametrize("misread", ["swapped", "shifted", "unsigned", "float as int", "int as bytes"])
def test_bytes_in_the_wrong_format_are_garbled(speech: Audio, misread: str) -> None:
    ints = np.rint(speech * 32767).astype("<i2")
    read = {
        "swapped": lambda: ints.byteswap() / 32768,
        "shifted": lambda: np.frombuffer(ints.tobytes()[1:-1], "<i2") / 32768,
        "unsigned": lambda: ints.view("<u2") / 32768 - 1,
        "float as int": lambda: np.frombuffer(speech.astype("<f4").tobytes(), "<i2") / 32768,
        "int as bytes": lambda: np.frombuffer(ints.tobytes(), np.uint8) / 128 - 1,
    }[misread]()
    assert facts(np.asarray(read, np.float32))["is_garbled"] is True


def test_a_header_that_deals_out_one_channel_is_garbled(speech: Audio) -> None:
    assert facts(speech, RECORDING | {"is_interleaved": True})["is_garbled"] is True


@pytest.mark.parametrize(("declared_hz", "is_wrong"), [(6000, True), (14_000, False), (18_000, False), (32_000, True)])
def test_speech_at_another_rate_than_it_was_spoken(speech: Audio, declared_hz: int, is_wrong: bool) -> None:
    assert facts(resample(speech, declared_hz, MODEL_RATE_HZ))["is_wrong_speed"] is is_wrong


def test_speed_moves_with_both_facts_and_needs_them() -> None:
    assert speed_ratio(2 * MEAN_PITCH_HZ, 2 * MEAN_RATE_HZ) == pytest.approx(2.0)
    assert (speed_ratio(None, 3.0), speed_ratio(100.0, None), speed_ratio(100.0, 0.0)) == (None, None, None)


@pytest.mark.parametrize(
    ("bandwidth_hz", "rate_hz", "expected"),
    [(3900.0, 44_100, True), (3900.0, 8000, False), (7900.0, 16_000, False), (None, 16_000, None)],
)
def test_an_upsampled_telephone_call(speech: Audio, bandwidth_hz: float | None, rate_hz: int, expected: bool | None) -> None:
    recording = RECORDING | {"bandwidth_hz": bandwidth_hz, "source_sample_rate_hz": rate_hz}
    assert facts(speech, recording)["is_narrowband"] is expected


def test_silence_and_shreds_are_not_judged(speech: Audio) -> None:
    for audio in (np.zeros(MODEL_RATE_HZ, np.float32), speech[:2000]):
        found = facts(audio)
        assert (found["flatness"], found["is_garbled"], found["is_wrong_speed"]) == (None, None, None)
