from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from annotators.acoustic_fingerprint import (
    HOP_S,
    HOP_SAMPLES,
    QUIET,
    RATE_HZ,
    acoustic_fingerprint,
    best_match,
    best_stretch,
    evidence,
    is_match,
    num_audible,
    shared_offsets,
)
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio

HOP_AT_16K = HOP_SAMPLES * MODEL_RATE_HZ // RATE_HZ


def values_of(audio: Audio, rate: int = MODEL_RATE_HZ) -> np.ndarray:
    return acoustic_fingerprint(audio, rate)


def through_av(audio: Audio, codec: str, container: str, bit_rate: int) -> tuple[Audio, int]:
    """As it comes back from a lossy file in memory."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=MODEL_RATE_HZ, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None]), format="fltp", layout="mono")
        frame.sample_rate = MODEL_RATE_HZ
        out.mux([*stream.encode(frame), *stream.encode(None)])
    file.seek(0)
    with av.open(file) as back:
        decoded = [frame.to_ndarray()[0] for frame in back.decode(audio=0)]
        return np.concatenate(decoded).astype(np.float32), back.streams.audio[0].rate


@pytest.fixture(scope="module")
def speech(conversation: Audio) -> Audio:
    return conversation[120_000:248_000]  # 8 s


@given(gain_db=st.floats(-40.0, 12.0))
def test_the_level_moves_no_bit(conversation: Audio, gain_db: float) -> None:
    audio = conversation[120_000:184_000]
    assert np.array_equal(values_of(audio * np.float32(10.0 ** (gain_db / 20.0))), values_of(audio))


@given(hops=st.integers(1, 100))
def test_a_trim_by_whole_hops_shifts_the_values(conversation: Audio, hops: int) -> None:
    audio = conversation[120_000:248_000]
    trimmed, whole = values_of(audio[hops * HOP_AT_16K :]), values_of(audio)[hops:]
    assert len(trimmed) == len(whole)
    compared = (trimmed != QUIET) & (whole != QUIET)  # what is quiet depends on what else the clip holds
    # The resampler's filter meets another edge in the first window; behind it nothing moves.
    assert np.array_equal(trimmed[2:][compared[2:]], whole[2:][compared[2:]])


@given(samples=st.integers(1, HOP_AT_16K * 20))
def test_a_trim_by_any_number_of_samples_moves_few_bits(conversation: Audio, samples: int) -> None:
    audio = conversation[120_000:248_000]
    match = best_match(values_of(audio), values_of(audio[samples:]))
    assert match is not None
    assert match.left_frame - match.right_frame == pytest.approx(samples / HOP_AT_16K, abs=1.0)
    assert match.bit_error_rate < 0.07
    assert is_match(match.bit_error_rate, match.num_compared)


def test_behind_other_audio_the_values_are_the_same(conversation: Audio, speech: Audio) -> None:
    other = conversation[: 50 * HOP_AT_16K] + 0.01 * np.sin(np.arange(50 * HOP_AT_16K) * 0.3).astype(np.float32)
    joined, alone = values_of(np.concatenate([other, speech]))[50:], values_of(speech)
    compared = (joined != QUIET) & (alone != QUIET)
    assert compared.sum() > 200
    assert np.array_equal(joined[2:][compared[2:]], alone[2:][compared[2:]])


def test_an_offset_from_zero_moves_no_bit(speech: Audio) -> None:
    moved = values_of(speech + np.float32(0.1))
    wrong = np.bitwise_count(moved ^ values_of(speech)).sum()
    assert wrong <= len(moved) * 32 // 1000


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_another_rate_moves_hardly_a_bit(speech: Audio, rate: int) -> None:
    match = best_match(values_of(speech), values_of(resample(speech, MODEL_RATE_HZ, rate), rate))
    assert match is not None
    assert match.bit_error_rate < 0.002
    assert match.left_frame == match.right_frame


@pytest.mark.parametrize(
    ("codec", "container", "bit_rate", "most"),
    [("libmp3lame", "mp3", 32_000, 0.1), ("libopus", "ogg", 16_000, 0.2), ("aac", "adts", 48_000, 0.1)],
)
def test_a_lossy_copy_is_found(speech: Audio, codec: str, container: str, bit_rate: int, most: float) -> None:
    match = best_match(values_of(speech), values_of(*through_av(speech, codec, container, bit_rate)))
    assert match is not None
    assert 0.0 < match.bit_error_rate < most
    assert is_match(match.bit_error_rate, match.num_compared)


def test_vorbis_and_noise_at_20_db_are_found(speech: Audio) -> None:
    file = io.BytesIO()
    soundfile.write(file, speech, MODEL_RATE_HZ, format="OGG", subtype="VORBIS")
    file.seek(0)
    noise = 0.1 * np.std(speech) * np.random.default_rng(0).standard_normal(len(speech))
    for copy in (soundfile.read(file, dtype="float32")[0], (speech + noise).astype(np.float32)):
        match = best_match(values_of(speech), values_of(copy))
        assert match is not None
        assert is_match(match.bit_error_rate, match.num_compared)


def test_other_speech_of_the_same_people_is_no_match(conversation: Audio) -> None:
    match = best_match(values_of(conversation[:240_000]), values_of(conversation[240_000:]))
    assert match is None or not is_match(match.bit_error_rate, match.num_compared)


def test_a_jingle_inside_two_recordings_is_found_where_it_is(conversation: Audio) -> None:
    jingle = conversation[120_000:184_000]
    random = np.random.default_rng(3)
    noise = (0.02 * random.standard_normal((2, 160_000))).astype(np.float32)
    left = values_of(np.concatenate([noise[0], jingle, noise[1][:100_000]]))
    right = values_of(np.concatenate([conversation[300_000:340_000], jingle, conversation[400_000:]]))
    match = best_match(left, right)
    assert match is not None
    assert is_match(match.bit_error_rate, match.num_compared)
    # The windows at its edges hold half of what is around it.
    assert match.left_frame * HOP_S == pytest.approx(10.0, abs=0.4)
    assert match.right_frame * HOP_S == pytest.approx(2.5, abs=0.4)
    assert match.num_frames * HOP_S == pytest.approx(4.0, abs=0.6)


def test_silence_and_short_audio_cannot_be_compared(speech: Audio) -> None:
    assert len(values_of(speech[: int(0.43 * MODEL_RATE_HZ)])) == 0
    assert len(values_of(speech[: int(0.44 * MODEL_RATE_HZ)])) == 1
    silent = values_of(np.zeros(MODEL_RATE_HZ, np.float32))
    assert len(silent) > 0
    assert num_audible(silent) == 0
    assert best_match(silent, silent) is None
    assert best_match(values_of(speech[:0]), values_of(speech)) is None


def test_a_pause_is_not_compared(speech: Audio) -> None:
    hiss = 1e-4 * np.random.default_rng(1).standard_normal(32_000).astype(np.float32)
    values = values_of(np.concatenate([speech[:32_000], hiss, speech[32_000:64_000]]))
    inside = values[int(2.0 / HOP_S) + 1 : int((4.0 - 0.41) / HOP_S) - 1]
    assert len(inside) > 50
    assert not inside.any()


def test_the_stretch_is_the_agreeing_part() -> None:
    random = np.random.default_rng(2)
    left = random.integers(1, 1 << 32, 300, dtype=np.uint32)
    right = random.integers(1, 1 << 32, 200, dtype=np.uint32)
    right[20:120] = left[100:200] ^ np.uint32(0b1000_0001)  # two wrong bits of 32
    right[60] = QUIET
    stretch = best_stretch(left, right, -80)
    assert stretch == (100, 20, 100, 99, 2 / 32)
    assert best_match(left, right) is None  # no value within one bit of another
    right[30:50] ^= np.uint32(1)  # now one wrong bit, in twenty frames
    assert shared_offsets(left, right)[0] == -80
    match = best_match(left, right)
    assert match is not None
    assert (match.left_frame, match.right_frame, match.num_compared) == (100, 20, 99)


def test_quiet_frames_at_its_ends_are_no_part_of_a_stretch() -> None:
    values = np.random.default_rng(5).integers(1, 1 << 32, 60, dtype=np.uint32)
    values[:10] = values[50:] = QUIET
    assert best_stretch(values, values, 0) == (10, 10, 40, 40, 0.0)


def test_a_hum_proposes_no_offset() -> None:
    assert len(shared_offsets(np.full(5, 7, np.uint32), np.full(1000, 7, np.uint32))) == 0


def test_evidence_grows_with_agreement_and_length() -> None:
    assert evidence(0.5, 100) == 0.0
    assert evidence(0.25, 100) == 5.0
    assert evidence(0.1, 400) == pytest.approx(16.0)
    assert not is_match(0.0, 28)
    assert is_match(0.0, 29)  # 0.7 s
    assert not is_match(0.26, 113)
    assert is_match(0.25, 113)
