"""Transformed copies of a clip: what happens to audio between two places where it is found.

Each takes float32 ``[S]`` at 16 kHz and returns float32 audio with its rate, of another length where it moves or trims.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import numpy as np

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from pipeline.decode import open_audio

SHORTEST_TRIMMED_S = 3.0
TELEPHONE_HZ = (300.0, 3400.0)
NOISE_SNR_DB = 20.0

Copy = Callable[[Audio, np.random.Generator], tuple[Audio, int]]


def encoded(audio_S: Audio, sample_rate_hz: int, codec: str, container: str, bit_rate: int) -> bytes:
    """The bytes of a lossy file, made in memory by FFmpeg."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as file:
        stream = file.add_stream(codec, rate=sample_rate_hz, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio_S[None]), format="fltp", layout="mono")
        frame.sample_rate = sample_rate_hz
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    return sink.getvalue()


def decoded(data: bytes) -> tuple[Audio, int]:
    """The first channel of a file and its rate, as the corpus builder decodes it."""
    decoder = open_audio(io.BytesIO(data))
    audio_SC = np.concatenate(list(decoder.blocks()))
    return np.ascontiguousarray(audio_SC[:, 0]), decoder.probe.sample_rate_hz


def recoded(codec: str, container: str, bit_rate: int) -> Copy:
    return lambda audio_S, _: decoded(encoded(audio_S, MODEL_RATE_HZ, codec, container, bit_rate))


def gained(gain_db: float) -> Copy:
    """Another level in a 16-bit file; peaks that pass full scale are clipped."""
    return lambda audio_S, _: (sixteen_bits(audio_S * 10.0 ** (gain_db / 20.0)), MODEL_RATE_HZ)


def clipped(audio_S: Audio, _: np.random.Generator) -> tuple[Audio, int]:
    """Overdriven until one sample in a hundred is flat."""
    return sixteen_bits(audio_S / max(1e-9, float(np.percentile(np.abs(audio_S), 99.0)))), MODEL_RATE_HZ


def resampled(sample_rate_hz: int) -> Copy:
    return lambda audio_S, _: (resample(audio_S, MODEL_RATE_HZ, sample_rate_hz), sample_rate_hz)


def trimmed(audio_S: Audio, random: np.random.Generator) -> tuple[Audio, int]:
    """Both ends cut off somewhere: at least 3 s are left, or four fifths of a shorter clip."""
    over = len(audio_S) - int(SHORTEST_TRIMMED_S * MODEL_RATE_HZ)
    spare = over if over > 0 else len(audio_S) // 5
    head, tail = (int(random.integers(0, spare // 2 + 1)) for _ in range(2))
    return audio_S[head : len(audio_S) - tail], MODEL_RATE_HZ


def noisy(audio_S: Audio, random: np.random.Generator) -> tuple[Audio, int]:
    """White noise 20 dB under the clip's own power."""
    scale = float(np.sqrt(np.mean(audio_S**2))) * 10.0 ** (-NOISE_SNR_DB / 20.0)
    return sixteen_bits(audio_S + scale * random.standard_normal(len(audio_S)).astype(np.float32)), MODEL_RATE_HZ


def delayed(audio_S: Audio, random: np.random.Generator) -> tuple[Audio, int]:
    """Up to two seconds of digital silence in front."""
    silence = np.zeros(int(random.integers(1, 2 * MODEL_RATE_HZ)), np.float32)
    return np.concatenate([silence, audio_S]), MODEL_RATE_HZ


def telephoned(audio_S: Audio, _: np.random.Generator) -> tuple[Audio, int]:
    """The band of 300 to 3400 Hz at 8 kHz, in mu-law."""
    from scipy.signal import butter, sosfilt

    band = butter(4, TELEPHONE_HZ, "bandpass", fs=MODEL_RATE_HZ, output="sos")
    narrow_S = resample(sosfilt(band, audio_S).astype(np.float32), MODEL_RATE_HZ, 8000)
    return decoded(encoded(np.clip(narrow_S, -1.0, 1.0), 8000, "pcm_mulaw", "wav", 64_000))


def uploaded_again(audio_S: Audio, random: np.random.Generator) -> tuple[Audio, int]:
    """Trimmed, 6 dB softer, as MP3 at 64 kb/s and then as Opus at 24 kb/s."""
    once_S, rate = decoded(encoded(trimmed(audio_S, random)[0] * 0.5, MODEL_RATE_HZ, "libmp3lame", "mp3", 64_000))
    return decoded(encoded(once_S, rate, "libopus", "ogg", 24_000))


def sixteen_bits(audio_S: Audio) -> Audio:
    """Float32 as a 16-bit file would hold it."""
    return (np.clip(np.rint(audio_S * 32768.0), -32768, 32767) / 32768.0).astype(np.float32)


COPIES: dict[str, Copy] = {
    "MP3 128 kb/s": recoded("libmp3lame", "mp3", 128_000),
    "MP3 64 kb/s": recoded("libmp3lame", "mp3", 64_000),
    "MP3 32 kb/s": recoded("libmp3lame", "mp3", 32_000),
    "Opus 24 kb/s": recoded("libopus", "ogg", 24_000),
    "Opus 16 kb/s": recoded("libopus", "ogg", 16_000),
    "AAC 48 kb/s": recoded("aac", "adts", 48_000),
    "gain +12 dB, 16 bits": gained(12.0),
    "gain -12 dB, 16 bits": gained(-12.0),
    "1 % of samples clipped": clipped,
    "resampled to 8 kHz": resampled(8000),
    "resampled to 22.05 kHz": resampled(22_050),
    "resampled to 44.1 kHz": resampled(44_100),
    "trimmed at both ends": trimmed,
    "white noise, SNR 20 dB": noisy,
    "silence in front": delayed,
    "telephone band, mu-law": telephoned,
    "trimmed, -6 dB, MP3 64, Opus 24": uploaded_again,
}
