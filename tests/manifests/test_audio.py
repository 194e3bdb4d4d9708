from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.audio import PIECE_S, AudioReader, HeardAudio, decode_flac, encode_flac, piece_name, resample
from manifests.errors import ContractError
from manifests.store import Store
from manifests.tars import TarWriter

RATE_HZ = 400  # small, so that a piece is 24,000 samples
NUM_SAMPLES = 2 * PIECE_S * RATE_HZ + 7_001
RECORDING = bytes(range(16))


def ramp(num_samples: int) -> np.ndarray:
    """Float32 values that 16-bit FLAC holds exactly; neighbours differ."""
    return (((np.arange(num_samples) * 37) % 65_536 - 32_768) / 32_768).astype(np.float32)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> AudioReader:
    store, tar, step = Store(str(tmp_path_factory.mktemp("audio"))), TarWriter(), PIECE_S * RATE_HZ
    for channel, audio in enumerate((ramp(NUM_SAMPLES), -ramp(NUM_SAMPLES) / 2)):
        for piece, start in enumerate(range(0, NUM_SAMPLES, step)):
            tar.add(piece_name(RECORDING, channel, piece), encode_flac(audio[start : start + step], RATE_HZ))
    data, index = tar.close()
    store.write("a.tar", data)
    store.write("a.tar.idx", index)
    return AudioReader(store, ["a.tar"], cached_pieces=2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, NUM_SAMPLES - 1), st.integers(0, NUM_SAMPLES))
def test_a_span_is_a_slice_wherever_it_lies(reader: AudioReader, start: int, length: int) -> None:
    end = min(NUM_SAMPLES, start + length)
    np.testing.assert_array_equal(reader.read(RECORDING, 0, RATE_HZ, start, end), ramp(NUM_SAMPLES)[start:end])


@pytest.mark.parametrize("piece", [1, 2])
def test_spans_at_the_edge_of_a_piece(reader: AudioReader, piece: int) -> None:
    edge, audio = piece * PIECE_S * RATE_HZ, ramp(NUM_SAMPLES)
    for start, end in ((edge - 1, edge), (edge, edge + 1), (edge - 1, edge + 1), (0, NUM_SAMPLES)):
        np.testing.assert_array_equal(reader.read(RECORDING, 0, RATE_HZ, start, end), audio[start:end])


def test_channels_are_kept_apart(reader: AudioReader) -> None:
    first, second = (reader.read(RECORDING, channel, RATE_HZ, 100, 200) for channel in (0, 1))
    np.testing.assert_allclose(second, -first / 2, atol=1 / 32_768)


def test_samples_that_are_not_stored_are_an_error(reader: AudioReader) -> None:
    with pytest.raises(ContractError, match=r"samples 55000\.\.55002 asked"):
        reader.read(RECORDING, 0, RATE_HZ, NUM_SAMPLES - 1, NUM_SAMPLES + 1)
    with pytest.raises(ContractError, match="in no audio tar"):
        reader.read(RECORDING, 2, RATE_HZ, 0, 1)


@pytest.mark.parametrize("bits", [16, 24])
def test_flac_holds_every_sample_of_its_width(bits: int) -> None:
    full = np.array([-(2 ** (bits - 1)), -1, 0, 1, 2 ** (bits - 1) - 1], dtype=np.int32) << (32 - bits)
    data = encode_flac(full, 48_000, bits)
    stored, rate = soundfile.read(io.BytesIO(data), dtype="int32")
    assert rate == 48_000
    np.testing.assert_array_equal(stored, full)
    assert decode_flac(data)[0].dtype == np.float32


@given(st.integers(0, 2_000), st.sampled_from([(8_000, 16_000), (48_000, 16_000), (44_100, 16_000), (16_000, 16_000)]))
def test_resampling_gives_the_rounded_length(num_samples: int, rates: tuple[int, int]) -> None:
    out = resample(np.zeros(num_samples, np.float32), *rates)
    assert out.dtype == np.float32
    assert abs(len(out) - num_samples * rates[1] / rates[0]) <= 0.5


def test_resampling_keeps_a_tone() -> None:
    time_s = np.arange(8_000) / 8_000
    out = resample(np.sin(2 * np.pi * 440 * time_s).astype(np.float32), 8_000, 16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(out[1_000:-1_000], expected[1_000:-1_000], atol=2e-3)


def test_a_reader_keeps_no_more_pieces_than_asked(reader: AudioReader) -> None:
    reader.read(RECORDING, 0, RATE_HZ, 0, NUM_SAMPLES)
    assert len(reader._cache) == 2


def test_missing_tars_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AudioReader(Store(str(tmp_path)), ["none.tar"])


@pytest.fixture(scope="module")
def stored_8k(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioReader, np.ndarray]:
    """Noise of 150 s at 8 kHz in three pieces, and the same as an array."""
    rate, store, tar = 8_000, Store(str(tmp_path_factory.mktemp("long"))), TarWriter()
    audio = np.random.default_rng(3).uniform(-0.5, 0.5, 150 * rate).astype(np.float32)
    for piece in range(3):
        part = audio[piece * PIECE_S * rate : (piece + 1) * PIECE_S * rate]
        tar.add(piece_name(RECORDING, 0, piece), encode_flac(part, rate))
    data, index = tar.close()
    store.write("a.tar", data)
    store.write("a.tar.idx", index)
    return AudioReader(store, ["a.tar"]), audio


def test_heard_audio_is_the_channel_resampled_at_once(stored_8k: tuple[AudioReader, np.ndarray]) -> None:
    reader, audio = stored_8k
    heard = HeardAudio(reader, RECORDING, 0, 8_000, len(audio))
    whole = resample(audio, 8_000, 16_000)
    assert len(heard) == len(whole)
    # Stored with 16 bits, so equal to about 2^-15; at the seams no worse than elsewhere.
    np.testing.assert_allclose(heard[:], whole, atol=2e-4)


@settings(max_examples=20)
@given(st.integers(0, 2_400_000), st.integers(0, 2_400_000))
def test_how_heard_audio_is_sliced_changes_no_sample(stored_8k: tuple[AudioReader, np.ndarray], start: int, stop: int) -> None:
    reader, audio = stored_8k
    heard = HeardAudio(reader, RECORDING, 0, 8_000, len(audio))
    np.testing.assert_array_equal(heard[start:stop], HeardAudio(reader, RECORDING, 0, 8_000, len(audio))[:][start:stop])
