"""Any audio file to float32 blocks, with what its header promised beside what came out.

soundfile decodes what libsndfile knows (wav, flac, ogg, opus, mp3, aiff, ...); PyAV, with the FFmpeg inside its wheel,
decodes the rest (m4a, aac, webm, video). Neither is told the file's name: bytes decide, not suffixes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile

from manifests.errors import AudioRefused
from manifests.synthetic import synthesizer_in

BLOCK_SAMPLES = 1 << 18
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
MAX_CHANNELS = 32
AV_TAGS = ("FLAC", "OGG", "MP3")  # formats in which FFmpeg calls a comment what libsndfile does not look for
# Lossy decoders add and drop some samples at the edges (encoder delay, last frame): two MPEG-1 frames and the delay.
LOSSY_SLACK_SAMPLES = 2 * 1152 + 1105
STREAMED_SIZE = 0xFFFFFFFF
BARE_STREAMS = frozenset({"aac", "ac3", "eac3", "mp3", "dts", "amr"})


@dataclass(frozen=True)
class Probe:
    """What the header says."""

    sample_rate_hz: int
    num_channels: int
    codec: str
    container: str
    bits: int  # that keep the decoded audio: 16, or 24 for deeper integer and float sources
    declared_num_samples: int | None
    slack_samples: int  # fewer samples than declared, by at most so many, are no loss
    synthesizer: str | None  # by the mark that synthetic files carry in their comment tag


class Decoder:
    """An opened audio file. Iterate ``blocks`` once; ``error`` then tells whether the decoder gave up."""

    def __init__(self, probe: Probe, blocks: Iterator[np.ndarray]) -> None:
        self.probe = probe
        self._blocks = blocks
        self.error: str | None = None

    def blocks(self) -> Iterator[np.ndarray]:
        """Float32 ``[n, channels]`` at the file's rate; ends early, with ``error`` set, where decoding fails."""
        try:
            yield from self._blocks
        except MemoryError:
            raise
        except Exception as error:  # decoders raise what they like on broken data; the part before is kept
            self.error = " ".join(str(error).split()) or type(error).__name__


def open_audio(file: BinaryIO) -> Decoder:
    """Open a seekable binary file. Raises AudioRefused: not_audio, bad_header, sample_rate_out_of_range, no_samples."""
    head = file.read(64)
    file.seek(0)
    if not head:
        raise AudioRefused("no_bytes", "file of 0 bytes; fetch it again")
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise AudioRefused("not_audio", "an HTML page, not audio; fetch it again")
    decoder, complaint = _open_with_soundfile(file)
    if decoder is None:
        file.seek(0)
        decoder, av_complaint = _open_with_av(file)
        complaint = f"{complaint}; {av_complaint}"
    if decoder is None:
        reason = "bad_header" if head[:4] in (b"RIFF", b"fLaC", b"OggS") else "not_audio"
        raise AudioRefused(reason, f"no decoder takes it: {complaint}")
    probe = decoder.probe
    if not MIN_RATE_HZ <= probe.sample_rate_hz <= MAX_RATE_HZ:
        raise AudioRefused(
            "sample_rate_out_of_range",
            f"header says {probe.sample_rate_hz} Hz; rates from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are taken, mend the header",
        )
    if not 1 <= probe.num_channels <= MAX_CHANNELS:
        raise AudioRefused("channels_out_of_range", f"header says {probe.num_channels} channels; 1 to {MAX_CHANNELS} are taken")
    return decoder


def _open_with_soundfile(file: BinaryIO) -> tuple[Decoder | None, str]:
    declared = _riff_declared_samples(file) or _mp3_declared_samples(file)
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file, "r")
    except soundfile.LibsndfileError as error:
        return None, f"libsndfile: {error.error_string.rstrip('.')}"
    except (TypeError, ValueError) as error:  # soundfile's own checks of a header that libsndfile let pass
        return None, f"soundfile: {error}"
    lossy = sound.format in ("MP3", "OGG") or sound.subtype.startswith(("MPEG", "VORBIS", "OPUS"))
    deep = sound.subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    declared = declared or (sound.frames if 0 < sound.frames < 1 << 62 else None)
    probe = Probe(
        int(sound.samplerate),
        int(sound.channels),
        sound.subtype.lower(),
        sound.format.lower(),
        24 if deep else 16,
        declared,
        LOSSY_SLACK_SAMPLES if lossy else 0,
        synthesizer_in(sound.comment) or (_mark_by_av(file) if sound.format in AV_TAGS else None),
    )
    return Decoder(probe, _soundfile_blocks(sound)), ""


def _mark_by_av(file: BinaryIO) -> str | None:
    """The mark of synthetic speech as FFmpeg writes it; the file stays where it is. 0.6 ms a file."""
    import av

    place = file.tell()
    file.seek(0)
    try:
        with av.open(file, mode="r", metadata_errors="replace") as container:
            return _mark_in(container)
    except (av.FFmpegError, ValueError):  # libsndfile takes more than FFmpeg does
        return None
    finally:
        file.seek(place)


def _mark_in(container: Any) -> str | None:
    """The mark in the tags of a container or of its streams, where Ogg has them; Matroska writes their names large."""
    tags = [*container.metadata.items(), *(tag for stream in container.streams for tag in stream.metadata.items())]
    return synthesizer_in("\n".join(text for name, text in tags if name.lower() == "comment"))


def _soundfile_blocks(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    with sound:
        while len(block := sound.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
            yield block


def _open_with_av(file: BinaryIO) -> tuple[Decoder | None, str]:
    import av

    try:
        container = av.open(file, mode="r")
        stream = container.streams.audio[0]
        rate, channels = int(stream.rate or 0), int(stream.channels or 0)
    except av.FFmpegError as error:
        return None, f"FFmpeg: {error.strerror}"
    except IndexError:
        return None, "FFmpeg: no audio stream"
    # In a bare stream (ADTS, ...) FFmpeg guesses the duration from the bit rate: that is no promise.
    has_index = container.format.name not in BARE_STREAMS
    seconds = stream.duration * stream.time_base if has_index and stream.duration and stream.time_base else None
    declared = round(seconds * rate) if seconds else None
    probe = Probe(
        rate,
        channels,
        stream.codec_context.name,
        container.format.name,
        16,
        declared,
        max(LOSSY_SLACK_SAMPLES, rate // 10),
        _mark_in(container),
    )
    return Decoder(probe, _av_blocks(container, stream, channels)), ""


def _av_blocks(container: Any, stream: Any, channels: int) -> Iterator[np.ndarray]:
    import av

    # Planar float out of any sample format; rate and channels stay those of the file.
    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    with container:
        for frame in container.decode(stream):
            for converted in resampler.resample(frame):
                yield np.ascontiguousarray(converted.to_ndarray().reshape(channels, -1).T)


def _riff_declared_samples(file: BinaryIO) -> int | None:
    """Samples that a RIFF data chunk claims; libsndfile itself trims the claim to the file's end and keeps silent."""
    file.seek(0)
    if file.read(4) != b"RIFF" or len(file.read(4)) < 4 or file.read(4) != b"WAVE":
        return None
    block_align = 0
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"fmt ":
            chunk = file.read(size)
            block_align = struct.unpack("<H", chunk[12:14])[0] if len(chunk) >= 14 else 0
        elif name == b"data":
            # A writer that could not seek back left a size that means "to the end": that is no promise.
            streamed = size >= STREAMED_SIZE - 36 or size == 0
            return None if streamed or not block_align else size // block_align
        else:
            file.seek(size, 1)
        file.seek(size % 2 if name != b"data" else 0, 1)
    return None


def _mp3_declared_samples(file: BinaryIO) -> int | None:
    """Samples that the Xing or Info header of an MP3 claims: frames x samples a frame (ISO 11172-3, 13818-3)."""
    file.seek(0)
    head = file.read(16_384)
    for mark in (b"Xing", b"Info"):
        at = head.find(mark)
        sync = head.rfind(b"\xff", 0, at) if at > 0 else -1
        while sync >= 0 and head[sync + 1] & 0xE0 != 0xE0:
            sync = head.rfind(b"\xff", 0, sync)
        if sync < 0 or len(head) < at + 12 or not head[at + 7] & 1:
            continue
        is_mpeg1 = head[sync + 1] >> 3 & 3 == 3
        frames = struct.unpack(">I", head[at + 8 : at + 12])[0]
        return int(frames) * (1152 if is_mpeg1 else 576)
    return None
