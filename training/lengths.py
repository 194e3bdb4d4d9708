"""Lengths along the audio path, by arithmetic alone: samples, mel frames, encoder frames, patches.

Source: reference, section 1.5. The published client counts mel frames minus two as valid, and so does everything here.
"""

from __future__ import annotations

from manifests.errors import RequestError

MIN_SAMPLES = 321  # the shortest audio that gives one patch
PIECE_SAMPLES = 400_000  # 25 s: the longest audio behind one <audio_start>
LONGEST_SAMPLES = 479_680  # the longest that the encoder's 1,500 positions of 50 Hz hold


def num_mel_frames(num_samples: int) -> int:
    """Mel frames M of N samples at 16 kHz: ``(N + 479) // 160``. Raises RequestError below 321 samples."""
    if num_samples < MIN_SAMPLES:
        raise RequestError(f"audio has {num_samples} samples; one patch needs {MIN_SAMPLES} at 16 kHz: leave the clip out")
    return (num_samples + 479) // 160


def num_valid_frames(num_mel: int) -> int:
    """Mel frames that count as audio: ``M - 2``."""
    return num_mel - 2


def num_encoder_frames(num_valid: int) -> int:
    """Frames after the encoder (25 Hz) of that many valid mel frames."""
    return (num_valid + 1) // 2 // 2


def num_adaptor_frames(num_encoder: int) -> int:
    """Frames after the adaptor (12.5 Hz)."""
    return (num_encoder - 1) // 2 + 1


def num_patches(num_samples: int) -> int:
    """``<audio_patch>`` tokens of N samples at 16 kHz heard at once. Raises RequestError outside 321 to 479,680 samples."""
    if num_samples > LONGEST_SAMPLES:
        raise RequestError(
            f"audio has {num_samples} samples; the encoder hears at most {LONGEST_SAMPLES} at once: cut it into pieces"
        )
    return num_adaptor_frames(num_encoder_frames(num_valid_frames(num_mel_frames(num_samples))))


def pieces(num_samples: int) -> tuple[tuple[int, int], ...]:
    """Spans ``[start, stop)`` of 25 s that are heard one by one, each behind an <audio_start> of its own.

    A tail under 321 samples gives no patch and is left out. Raises RequestError when nothing is left.
    """
    num_mel_frames(num_samples)
    starts = range(0, num_samples, PIECE_SAMPLES)
    spans = ((start, min(start + PIECE_SAMPLES, num_samples)) for start in starts)
    return tuple((start, stop) for start, stop in spans if stop - start >= MIN_SAMPLES)


def num_heard_tokens(num_samples: int) -> int:
    """Positions of audio that is heard: patches, and two of a wrapper for each piece."""
    return sum(num_patches(stop - start) + 2 for start, stop in pieces(num_samples))


def num_dropped_samples(num_samples: int) -> int:
    """Samples of the tail that is left out, 0 to 320."""
    return num_samples - pieces(num_samples)[-1][1]
