"""Lengths along the audio path, by arithmetic alone: samples, mel frames, encoder frames, patches.

Source: reference, section 1.5. The published client counts mel frames minus two as valid, and so does everything here.
"""

from __future__ import annotations

from manifests.errors import RequestError

MIN_SAMPLES = 321  # the shortest audio that gives one patch
PIECE_SAMPLES = 400_000  # 25 s: the longest audio behind one <audio_start>


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
    """``<audio_patch>`` tokens of N samples at 16 kHz. Raises RequestError below 321 samples."""
    return num_adaptor_frames(num_encoder_frames(num_valid_frames(num_mel_frames(num_samples))))
