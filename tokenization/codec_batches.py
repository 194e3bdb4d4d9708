"""The batches that a codec learns from: clips whose words are known are taken whole, others as crops.

N spectrum frames (100 a second), M mel bins, B batch, F code frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokenization.codec import padded
from tokenization.codec_clips import SpokenClip, split_clips
from tokenization.fsq import FRAMES_PER_CODE
from tokenization.letters import Letters, shortest_frames
from tokenization.mel import FLOOR, MEL_RATE_HZ, log_mel

SHORTER, LONGER = 0.8, 1.25  # lengths of one batch beside that of the piece it was drawn around


@dataclass(frozen=True)
class HeardClip:
    """One clip as the trainer holds it; ``labels`` where it supervises."""

    mel: torch.Tensor  # float32 [N, M], N a multiple of 4
    text: str | None = None
    labels: tuple[int, ...] | None = None


def hear(clips: Iterable[SpokenClip], num_mels: int, max_text_clip_s: float) -> tuple[list[HeardClip], Letters | None]:
    """The clips that have samples, in order, and the letters of their texts; None where no clip supervises.

    A clip supervises when it has words, lasts at most ``max_text_clip_s`` and has frames enough for its letters. Letters
    are taken from what is learned from, so that a held-out text adds none.
    """
    kept = [(torch.from_numpy(log_mel(padded(clip.audio), num_mels)), clip.text) for clip in clips if len(clip.audio)]
    learnt, _ = split_clips(len(kept))
    letters = Letters.of(text for _, text in (kept[i] for i in learnt) if text)
    heard = [_heard(mel, text, letters, max_text_clip_s) for mel, text in kept]
    return heard, letters if any(heard[i].labels for i in learnt) else None


def _heard(mel: torch.Tensor, text: str | None, letters: Letters, max_text_clip_s: float) -> HeardClip:
    labels = tuple(letters.labels(text or ""))
    fits = len(mel) <= max_text_clip_s * MEL_RATE_HZ and shortest_frames(labels) <= len(mel) // FRAMES_PER_CODE
    return HeardClip(mel, text, labels if labels and fits else None)


@dataclass(frozen=True)
class CodecBatch:
    """Pieces side by side, padded behind their ends."""

    mel_BNM: torch.Tensor  # noqa: N815 (shape suffix)
    lengths_B: torch.Tensor  # noqa: N815 (int64, code frames of each)
    labels: tuple[tuple[int, ...] | None, ...]  # [B]

    @property
    def within_BN1(self) -> torch.Tensor:  # noqa: N802 (shape suffix)
        """float32: 1 where a frame belongs to its clip."""
        places = torch.arange(self.mel_BNM.shape[1])
        return (places < FRAMES_PER_CODE * self.lengths_B[:, None]).float()[..., None]

    @property
    def within_BF(self) -> torch.Tensor:  # noqa: N802 (shape suffix)
        """bool: code frames that belong to their clip."""
        return torch.arange(self.mel_BNM.shape[1] // FRAMES_PER_CODE) < self.lengths_B[:, None]


class BatchSource:
    """Draws batches of about ``batch_s`` seconds of pieces of like length, each second of audio as often as another.

    The same clips, settings and seed give the same batches; ``state_dict`` goes on where it was.
    """

    def __init__(self, clips: Sequence[HeardClip], batch_s: float, crop_s: float, seed: int) -> None:
        crop = FRAMES_PER_CODE * max(1, round(crop_s * MEL_RATE_HZ / FRAMES_PER_CODE))
        pieces = [len(clip.mel) if clip.labels is not None else min(crop, len(clip.mel)) for clip in clips]
        order = np.argsort(pieces, kind="stable")
        self._clips = [clips[i] for i in order]
        self._pieces = np.array(pieces)[order]  # frames, ascending
        self._shares = np.array([len(clip.mel) for clip in self._clips], float)
        self._batch_frames = batch_s * MEL_RATE_HZ
        self._random = np.random.default_rng(seed)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._random.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state

    def draw(self) -> CodecBatch:
        """A batch of one piece or more."""
        around = self._pieces[self._random.choice(len(self._pieces), p=self._shares / self._shares.sum())]
        first = np.searchsorted(self._pieces, SHORTER * around)
        end = np.searchsorted(self._pieces, LONGER * around, side="right")
        # A clip that is cropped has as many pieces to give as it is long.
        shares = self._shares[first:end] / self._pieces[first:end]
        size = max(1, int(self._batch_frames // around))
        chosen = first + self._random.choice(end - first, size=size, p=shares / shares.sum())
        return self._batch([int(index) for index in chosen])

    def _batch(self, chosen: Sequence[int]) -> CodecBatch:
        mels = []
        for index in chosen:
            mel, frames = self._clips[index].mel, int(self._pieces[index])
            start = int(self._random.integers(0, len(mel) - frames + 1))
            mels.append(mel[start : start + frames])
        mel_BNM = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True, padding_value=float(np.log(FLOOR)))
        lengths_B = torch.tensor([len(mel) // FRAMES_PER_CODE for mel in mels])
        return CodecBatch(mel_BNM, lengths_B, tuple(self._clips[index].labels for index in chosen))
