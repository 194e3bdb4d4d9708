"""What the frozen encoder gives for pieces of audio, kept in memory, so that a small set is encoded once and not every epoch.

With a cache every piece is encoded by itself, whether its frames are kept or not: what a piece's neighbours in a batch are moves
the last bits of its frames, and a run must not depend on what happened to be kept (docs/decisions/0028).

Shapes: S audio samples, F encoder frames, E encoder width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from manifests.ids import digest_blocks, digest_bytes
from training.encoder import AudioEncoder
from training.lengths import num_encoder_frames, num_mel_frames, num_valid_frames


class Slot:
    """Where the frames of one piece go: ``frames_FE`` is None until somebody has encoded it, and stays what it is then.

    Frames lie in the memory of the host, in the encoder's dtype.
    """

    def __init__(self) -> None:
        self.frames_FE: torch.Tensor | None = None


class FeatureCache:
    """Slots by the piece's own samples, for one encoder at a time, up to a number of bytes.

    What came first stays: every epoch reads all that there is in a new order, and whatever made room for later pieces would be
    missed before these are wanted again. Mels need no key of their own: nothing of ``features.log_mel`` can be set but the number
    of bands, which is a size of the encoder's weights.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._slots: dict[bytes, Slot] = {}
        self._encoder = b""
        self._frame_bytes = self._held_bytes = 0

    def belong_to(self, encoder: AudioEncoder) -> None:
        """Forget the frames of any other encoder: one that differs in a bit of its weights. Call it where a stage begins."""
        found = encoder_digest(encoder)
        if found != self._encoder:
            weight = encoder.after_norm.weight
            self._encoder, self._frame_bytes = found, weight.numel() * weight.element_size()
            self._slots, self._held_bytes = {}, 0

    def slot(self, audio_S: np.ndarray) -> Slot:
        """The slot of a piece, float32 at 16 kHz; one that is kept by nobody else where the cache is full."""
        key = digest_bytes(audio_S.tobytes())
        if key in self._slots:
            return self._slots[key]
        slot = Slot()
        num_bytes = self._frame_bytes * num_encoder_frames(num_valid_frames(num_mel_frames(len(audio_S))))
        if self._held_bytes + num_bytes <= self._most_bytes:
            self._held_bytes += num_bytes
            self._slots[key] = slot
        return slot


def encoder_digest(encoder: AudioEncoder) -> bytes:
    """16 bytes that tell an encoder from any other: of names, types, shapes and bits of its weights."""

    def blocks() -> Iterator[bytes]:
        for name, tensor in encoder.state_dict().items():
            yield f"{name} {tensor.dtype} {list(tensor.shape)} ".encode()
            yield tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()

    return digest_blocks(blocks())
