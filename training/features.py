"""What the encoder hears: Whisper's log-mel over 16 kHz audio, and how many patches come out of it.

Shapes: S audio samples, C mel bands, M mel frames. Source of every formula: reference, section 1.5 (the published
inference code).
"""

from __future__ import annotations

from functools import lru_cache

import torch

from manifests.errors import ContractError
from manifests.mel import slaney_filters
from training.lengths import num_mel_frames

FFT_SAMPLES = 400
HOP_SAMPLES = 160
RIGHT_PAD_SAMPLES = 479
FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades below the loudest bin of the piece


def log_mel(audio_S: torch.Tensor, num_mels: int) -> torch.Tensor:
    """Float32 ``[C, M]`` of float32 audio ``[S]`` at 16 kHz, M = ``num_mel_frames(S)``.

    479 zeros are put behind the audio, frames are centred, the last one is dropped; values are floored 8 decades
    below the piece's own maximum and scaled to about [-1, 1]. Raises RequestError for audio without one patch.
    """
    frames = num_mel_frames(len(audio_S))
    padded = torch.nn.functional.pad(audio_S, (0, RIGHT_PAD_SAMPLES))
    spectrum = torch.stft(padded, FFT_SAMPLES, HOP_SAMPLES, window=torch.hann_window(FFT_SAMPLES), return_complex=True)
    power = spectrum[:, :-1].abs().square()
    mel_CM = (mel_filters(num_mels) @ power).clamp(min=FLOOR).log10()
    mel_CM = torch.maximum(mel_CM, mel_CM.max() - DYNAMIC_RANGE)
    if mel_CM.shape[1] != frames:
        raise ContractError(
            f"audio of {len(audio_S)} samples gave {mel_CM.shape[1]} mel frames; reference 1.5 says {frames}: mend one"
        )
    return (mel_CM + 4.0) / 4.0


@lru_cache(maxsize=4)
def mel_filters(num_mels: int) -> torch.Tensor:
    """Slaney's triangular filters of unit area, float32 ``[C, 201]``, from 0 Hz to half the rate."""
    from manifests.contracts import MODEL_RATE_HZ  # late: it brings pyarrow, and the model runs without

    return torch.from_numpy(slaney_filters(MODEL_RATE_HZ, FFT_SAMPLES, num_mels))
