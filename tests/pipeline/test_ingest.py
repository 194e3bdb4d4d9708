"""Ingest: what comes in is stored sample for sample; what cannot is refused with a reason, and losses are noticed."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from manifests.audio import decode_flac, resample
from manifests.synthetic import mark_of
from manifests.tars import TarWriter
from pipeline.ingest import Ingested, StoreConfig, ingest
from pipeline.sources import list_inputs

RATE = 16_000
TONE = (0.5 * np.sin(np.arange(RATE) * 0.05)).astype(np.float32)


def take(path, config: StoreConfig | None = None) -> tuple[Ingested, dict[str, np.ndarray]]:
    tar = TarWriter()
    result = ingest(list_inputs([str(path)])[0], config or StoreConfig(), tar, {})
    data, _ = tar.close()
    pieces = {m.name: decode_flac(data[m.offset : m.offset + m.num_bytes])[0] for m in tar.members}
    return result, pieces


def write(path, audio, rate=RATE, **options):
    soundfile.write(path, audio, rate, **options)
    return path


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_U8", 16), ("ULAW", 16)])
def test_integer_audio_is_stored_exactly(tmp_path, subtype, bits):
    path = write(tmp_path / "a.wav", TONE, subtype=subtype)
    result, pieces = take(path)
    assert result.recording_row["stored_bits"] == bits
    assert result.recording_row["stored_scale"] == 1.0
    (stored,) = pieces.values()
    np.testing.assert_array_equal(stored, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "wav"])
def test_formats_of_libsndfile(tmp_path, suffix):
    result, _ = take(write(tmp_path / f"a.{suffix}", TONE))
    assert result.input_row["outcome"] == "stored"
    assert abs(result.recording_row["num_samples"] - RATE) < 3000


def test_m4a_through_pyav(tmp_path):
    import av

    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44_100, layout="stereo")
        audio = np.tile((0.3 * np.sin(np.arange(44_100) * 0.05)).astype(np.float32), (2, 1))
        for start in range(0, 44_100, 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(audio[:, start : start + 1024]), format="fltp", layout="stereo"
            )
            frame.sample_rate, frame.pts = 44_100, start
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    result, pieces = take(path)
    row = result.recording_row
    assert (row["codec"], row["num_channels"], row["heard_channels"]) == ("aac", 2, [0])
    assert abs(row["num_samples"] - 44_100) < 4096
    assert len(pieces) == 2


def test_long_audio_is_cut_into_pieces_of_a_minute(tmp_path):
    noise = (np.random.default_rng(0).standard_normal(130 * 8000) * 0.1).astype(np.float32)
    path = write(tmp_path / "long.wav", noise, 8000, subtype="PCM_16")
    result, pieces = take(path)
    assert [len(p) for p in pieces.values()] == [480_000, 480_000, 80_000]
    assert [name.split(".")[1:3] for name in pieces] == [["0", "0"], ["0", "1"], ["0", "2"]]
    np.testing.assert_array_equal(np.concatenate(list(pieces.values())), soundfile.read(path, dtype="float32")[0])
    assert result.recording_row["num_samples"] == 130 * 8000


def test_rates_above_48_khz_and_the_16_khz_store_are_resampled(tmp_path):
    path = write(tmp_path / "a.wav", np.repeat(TONE, 6), 96_000)
    native, _ = take(path)
    assert (native.recording_row["sample_rate_hz"], native.recording_row["source_sample_rate_hz"]) == (48_000, 96_000)
    assert abs(native.recording_row["num_samples"] - 48_000) <= 1
    small, _ = take(path, StoreConfig(sample_rate=16000))
    assert abs(small.recording_row["num_samples"] - 16_000) <= 1


def test_float_audio_past_full_scale_is_halved_until_it_fits(tmp_path):
    result, pieces = take(write(tmp_path / "a.wav", TONE * 12, subtype="FLOAT"))
    assert result.recording_row["stored_scale"] == 0.125
    assert result.recording_row["peak"] == pytest.approx(6.0, abs=0.01)
    (stored,) = pieces.values()
    np.testing.assert_allclose(stored, TONE * 12 * 0.125, atol=2**-22)


def test_which_channels_are_heard(tmp_path):
    other = (0.3 * np.sin(np.arange(RATE) * 0.31)).astype(np.float32)
    silence = np.zeros_like(TONE)
    cases = {(0,): [TONE, TONE * 0.5], (0, 1): [TONE, other], (1,): [silence, TONE], (0, 3): [TONE, silence, -TONE, other]}
    for heard, channels in cases.items():
        result, pieces = take(write(tmp_path / f"{len(channels)}{heard}.wav", np.stack(channels, axis=1)))
        assert result.recording_row["heard_channels"] == list(heard)
        assert len(pieces) == len(channels)  # all are stored


def refusal(path) -> str:
    result, pieces = take(path)
    assert result.recording_row is None
    assert not pieces
    assert result.input_row["outcome"] == "refused"
    (row,) = result.quarantine_rows
    assert row["outcome"] == "refused"
    assert row["message"]
    assert "object at 0x" not in row["message"]
    return row["reason"]


def test_refusals_have_reasons(tmp_path):
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio at all, only a few words")
    (tmp_path / "page.mp3").write_text("<!DOCTYPE html><html><body>404</body></html>")
    write(tmp_path / "empty.wav", TONE[:0])
    nan = TONE.copy()
    nan[100:200] = np.nan
    write(tmp_path / "nan.wav", nan, subtype="FLOAT")
    write(tmp_path / "one_hz.wav", TONE, 1)
    reasons = {path.name: refusal(path) for path in sorted(tmp_path.iterdir())}
    assert reasons == {
        "empty.wav": "no_samples",
        "nan.wav": "non_finite_samples",
        "one_hz.wav": "sample_rate_out_of_range",
        "page.mp3": "not_audio",
        "text.wav": "not_audio",
        "zero.wav": "no_bytes",
    }


def test_a_file_that_is_gone_is_refused_not_raised(tmp_path):
    path = write(tmp_path / "a.wav", TONE)
    item = list_inputs([str(path)])[0]
    path.unlink()
    assert ingest(item, StoreConfig(), TarWriter(), {}).quarantine_rows[0]["reason"] == "gone"


def test_a_cut_wav_keeps_its_part_and_says_so(tmp_path):
    path = write(tmp_path / "a.wav", TONE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    result, _ = take(path)
    assert result.input_row["outcome"] == "partial"
    assert result.recording_row["is_truncated"]
    assert result.recording_row["declared_num_samples"] == RATE
    assert result.quarantine_rows[0]["reason"] == "truncated"
    assert "1.000 s declared" in result.quarantine_rows[0]["message"]


def test_a_streamed_wav_promises_no_length(tmp_path):
    sink = io.BytesIO()
    soundfile.write(sink, TONE, RATE, format="WAV", subtype="PCM_16")
    data = bytearray(sink.getvalue())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    result, _ = take(tmp_path / "a.wav")
    assert (result.input_row["outcome"], result.recording_row["num_samples"]) == ("stored", RATE)


def test_equal_bytes_are_stored_once(tmp_path):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / name, TONE)
    tar, stored = TarWriter(), {}
    first, second = (ingest(item, StoreConfig(), tar, stored) for item in list_inputs([str(tmp_path)]))
    assert first.input_row["recording_id"] == second.input_row["recording_id"]
    assert second.recording_row is None
    assert len(tar.members) == 1


# What `expect` in the material's manifest means for ingest; the rest of it is due with the annotators.
OUTCOMES = {
    "error": {"refused"},
    "empty": {"refused"},
    "reject": {"refused"},
    "reject_or_repair": {"refused"},
    "partial": {"partial"},
    "partial_or_error": {"partial", "refused"},
}


def test_the_broken_files_end_as_their_manifest_expects(shared):
    import json

    rows = [json.loads(line) for line in (shared / "testdata" / "manifest.jsonl").read_text().splitlines()]
    broken = {str(shared / "testdata" / row["path"]): row["expect"] for row in rows if "broken" in row["kinds"]}
    assert len(broken) == 26
    for path, expect in broken.items():
        if "silence_1h" in path:
            continue  # an hour; the build test has it
        tar = TarWriter()
        (item,) = list_inputs([path])
        result = ingest(item, StoreConfig(), tar, {})
        assert result.input_row["outcome"] in OUTCOMES.get(expect, {"stored"}), path
        assert bool(result.quarantine_rows) == (result.input_row["outcome"] != "stored")


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg", "mp3", "aiff"])
def test_a_marked_file_is_known_to_be_synthetic_without_its_manifest(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.comment = mark_of("espeak-ng 1.52.0 (en-us+f3)")
        file.write(TONE)
    result, _ = take(path)
    assert result.input_row["synthesizer"] == "espeak-ng 1.52.0 (en-us+f3)"


CODECS = {
    "m4a": "aac",
    "flac": "flac",
    "ogg": "libopus",
    "mp3": "libmp3lame",
    "webm": "libopus",
    "mka": "aac",
    "wav": "pcm_s16le",
}


@pytest.mark.parametrize("suffix", CODECS)
def test_the_mark_outlives_a_conversion_by_ffmpeg_and_other_comments(tmp_path, suffix):
    import av

    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = f"nice voice\n{mark_of('somebody s voice')}"
        stream = container.add_stream(CODECS[suffix], rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None, :RATE], format="fltp", layout="mono")
        frame.sample_rate = RATE
        size = stream.codec_context.frame_size or None
        resampler = av.AudioResampler(stream.codec_context.format, "mono", RATE, size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    result, _ = take(path)
    recording = result.recording_row
    assert result.input_row["synthesizer"] == "somebody s voice"
    assert recording["num_samples"] / recording["sample_rate_hz"] == pytest.approx(1.0, abs=0.2)


def test_only_the_mark_and_the_manifest_make_speech_synthetic(tmp_path):
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.comment = "a talk about synthetic: things"
        file.write(TONE)
    assert take(path)[0].input_row["synthesizer"] is None
    (item,) = list_inputs([str(path)])
    told = replace(item, facts={"synthesizer": "a robot"})
    assert ingest(told, StoreConfig(), TarWriter(), {}).input_row["synthesizer"] == "a robot"


def test_inputs_of_the_same_bytes_are_all_synthetic(tmp_path):
    for name in ("a.flac", "b.flac"):
        with soundfile.SoundFile(tmp_path / name, "w", RATE, 1) as file:
            file.comment = mark_of("espeak-ng")
            file.write(TONE)
    stored, tar = {}, TarWriter()
    rows = [ingest(item, StoreConfig(), tar, stored).input_row for item in list_inputs([str(tmp_path)])]
    assert [row["synthesizer"] for row in rows] == ["espeak-ng", "espeak-ng"]
    assert len(stored) == 1


@pytest.mark.parametrize("stored_rate", ["native", 16000])
def test_bandwidth_is_that_of_the_acquired_audio_before_resampling(tmp_path, stored_rate):
    noise = np.random.default_rng(0).normal(size=3 * 8000).astype(np.float32) * 0.1
    call = write(tmp_path / "call.wav", resample(noise, 8000, 44_100), 44_100)
    music = write(tmp_path / "music.wav", resample(noise, 24_000, 44_100), 44_100)
    config = StoreConfig(sample_rate=stored_rate)
    assert take(call, config)[0].recording_row["bandwidth_hz"] == pytest.approx(4000, rel=0.05)
    assert take(music, config)[0].recording_row["bandwidth_hz"] == pytest.approx(12_000, rel=0.05)


def test_one_signal_that_a_header_deals_out_over_channels_is_told_from_channels_of_their_own(tmp_path, conversation):
    mono = conversation[: len(conversation) // 8 * 8]
    delayed = np.stack([mono, np.roll(mono, 1), np.roll(mono, 2)], axis=1)  # microphones in a row
    two = np.stack([mono, mono[::-1]], axis=1)
    for name, audio, expected in [("dealt", mono.reshape(-1, 8), True), ("delayed", delayed, False), ("two", two, False)]:
        row = take(write(tmp_path / f"{name}.wav", audio))[0].recording_row
        assert row["is_interleaved"] is expected, name
    assert take(write(tmp_path / "mono.wav", mono))[0].recording_row["is_interleaved"] is False
