"""Audio and mels, changed as a stage's recipe says. What is drawn for a document is a function of (seed, stage, position) alone.

So a run that goes on draws what the unbroken one would have, and so do several processes. Each kind of change draws from a stream of its own:
turning one on moves no other.

Shapes: S audio samples, C mel bands, M mel frames, B bins of a spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ
from manifests.mel import mels_of
from manifests.packs import Document
from training.batches import HeardExample
from training.encoder_recipe import AddedNoise, DrawnFilter, QuietEnds, SpecMasks, SpeedFactors
from training.examples import Example
from training.features import HOP_SAMPLES, log_mel
from training.lengths import LONGEST_SAMPLES, MIN_SAMPLES, num_encoder_frames, num_mel_frames, num_valid_frames
from training.order import generator
from training.recipe import CtcStage
from training.tags import tag_numbers

MELS_PER_S = MODEL_RATE_HZ / HOP_SAMPLES
RING_SAMPLES = 2048  # what a drawn filter rings for at most, before and behind


class Documents(Protocol):
    """Examples with one piece of audio, epoch after epoch."""

    def __len__(self) -> int:
        """Of an epoch."""

    def example(self, position: int) -> Example:
        """The one at a position, counted through all epochs."""

    def document(self, position: int) -> Document:
        """What it is made from."""


class HeardDocuments:
    """Examples of a stage as the encoder hears them. ``name`` tells the stage from all others of the run, and the run by its seed."""

    def __init__(self, documents: Documents, stage: CtcStage, name: str, num_mels: int) -> None:
        self._documents, self._recipe, self._tags = documents, stage.augment, stage.tags
        self._name, self._num_mels = name, num_mels

    def example(self, position: int) -> HeardExample:
        """The example with its audio as it is played, with mels of that, and with its tags."""
        example = self._documents.example(position)
        audio_S = example.audio[0]
        if self._recipe.speed is not None:
            audio_S = at_speed(audio_S, self._recipe.speed, self._draw(position, "speed"), example.ids)
        if self._recipe.filter is not None:
            audio_S = filtered(audio_S, self._recipe.filter, self._draw(position, "filter"))
        if self._recipe.ends is not None:
            audio_S = with_ends(audio_S, self._recipe.ends, self._draw(position, "ends"))
        if self._recipe.noise is not None:
            audio_S = with_noise(audio_S, self._recipe.noise, self._draw(position, "noise"), partial(self._other, position))
        mel_CM = log_mel(torch.from_numpy(audio_S), self._num_mels)
        if self._recipe.spec is not None:
            mel_CM = with_masks(mel_CM, self._recipe.spec, self._draw(position, "spec"))
        tags = tag_numbers(self._documents.document(position), self._tags) if self._tags else ()
        return HeardExample(replace(example, audio=(audio_S,)), mel_CM, tags)

    def _draw(self, position: int, what: str) -> np.random.Generator:
        return generator(f"{self._name} augment {what} {position}")

    def _other(self, position: int, draw: np.random.Generator) -> np.ndarray:
        """Audio of another document, where there is one."""
        num = len(self._documents)
        epoch, place = divmod(position, num)
        return self._documents.example(epoch * num + (place + int(draw.integers(1, max(2, num)))) % num).audio[0]


def at_speed(audio_S: np.ndarray, recipe: SpeedFactors, draw: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """Audio at a drawn speed; as it is where the encoder could not hear the changed one, or its frames could not hold the labels."""
    changed_S = resample(audio_S, round(MODEL_RATE_HZ * draw.choice(recipe.factors)), MODEL_RATE_HZ)
    if not MIN_SAMPLES <= len(changed_S) <= LONGEST_SAMPLES:
        return audio_S
    frames = num_encoder_frames(num_valid_frames(num_mel_frames(len(changed_S))))
    # CTC needs a blank between equal neighbours.
    return changed_S if len(ids) + int((ids[1:] == ids[:-1]).sum()) <= frames else audio_S


def filtered(audio_S: np.ndarray, recipe: DrawnFilter, draw: np.random.Generator) -> np.ndarray:
    """Audio through a drawn filter that delays nothing. Before noise is added: what a room changes, and not what it adds."""
    num_bands = int(draw.integers(recipe.num_bands[0], recipe.num_bands[1] + 1))
    inner = np.sort(draw.uniform(0.0, 1.0 - num_bands * recipe.min_band_share, num_bands - 1))
    edges = np.concatenate([[0.0], inner + recipe.min_band_share * np.arange(1, num_bands), [1.0]])
    gains_db = draw.uniform(*recipe.gain_db, len(edges)) + draw.uniform(*recipe.level_db)
    # Padded, or the end would ring into the beginning; to whole blocks, for lengths of large prime factors take ten times as long.
    padded = RING_SAMPLES * (1 + math.ceil(len(audio_S) / RING_SAMPLES))
    mels_B = mels_of(np.fft.rfftfreq(padded, 1.0 / MODEL_RATE_HZ))
    gains_B = 10.0 ** (np.interp(mels_B / mels_of(MODEL_RATE_HZ / 2), edges, gains_db) / 20.0)
    return np.fft.irfft(np.fft.rfft(audio_S, padded) * gains_B, padded)[: len(audio_S)].astype(np.float32)


def with_ends(audio_S: np.ndarray, recipe: QuietEnds, draw: np.random.Generator) -> np.ndarray:
    """Audio between two quiet ends of drawn lengths, or as it is where the encoder could not hear it all."""
    before, behind = (int(draw.uniform(0.0, recipe.longest_s) * MODEL_RATE_HZ) for _ in range(2))
    if before + len(audio_S) + behind > LONGEST_SAMPLES:
        return audio_S
    noise_S = coloured_noise(before + len(audio_S) + behind, draw.uniform(0.0, 2.0), draw)
    level = np.mean(np.square(audio_S, dtype=np.float64)) * 10.0 ** (draw.uniform(*recipe.level_db) / 10.0)
    made_S = noise_S * np.float32(np.sqrt(level / np.mean(np.square(noise_S, dtype=np.float64))))
    made_S[before : before + len(audio_S)] = audio_S
    return made_S


def with_noise(
    audio_S: np.ndarray, recipe: AddedNoise, draw: np.random.Generator, other: Callable[[np.random.Generator], np.ndarray]
) -> np.ndarray:
    """Audio with noise of a drawn level, or as it is: of silence no ratio can be had."""
    if draw.random() >= recipe.share:
        return audio_S
    snr_db = draw.uniform(*recipe.snr_db)
    if recipe.source == "coloured":
        noise_S = coloured_noise(len(audio_S), draw.uniform(0.0, 2.0), draw)
    else:
        found = other(draw)
        noise_S = np.resize(np.roll(found, int(draw.integers(len(found)))), len(audio_S))
    power, noise_power = (float(np.mean(np.square(x, dtype=np.float64))) for x in (audio_S, noise_S))
    if not power or not noise_power:
        return audio_S
    scale = np.float32(np.sqrt(power / noise_power * 10.0 ** (-snr_db / 10.0)))
    return np.asarray(audio_S + scale * noise_S, dtype=np.float32)


def coloured_noise(num_samples: int, exponent: float, draw: np.random.Generator) -> np.ndarray:
    """Float32 ``[num_samples]`` of Gaussian noise whose power falls as 1 / f^exponent (Timmer and Koenig 1995); its level means nothing."""
    bins = np.fft.rfftfreq(num_samples)
    bins[0] = bins[1]
    shape = bins ** (-exponent / 2.0)
    spectrum_B = shape * (draw.standard_normal(len(bins)) + 1j * draw.standard_normal(len(bins)))
    return np.fft.irfft(spectrum_B / shape.max(), num_samples).astype(np.float32)


def with_masks(mel_CM: torch.Tensor, recipe: SpecMasks, draw: np.random.Generator) -> torch.Tensor:
    """A copy in which drawn bands and stretches of time have the piece's mean."""
    num_bands, num_frames = mel_CM.shape
    masked_CM, mean = mel_CM.clone(), mel_CM.mean()
    for _ in range(recipe.num_band_masks):
        start, stop = _span(num_bands, round(recipe.max_band_share * num_bands), draw)
        masked_CM[start:stop] = mean
    longest = min(round(recipe.max_time_s * MELS_PER_S), int(recipe.max_time_share * num_frames))
    for _ in range(recipe.num_time_masks):
        start, stop = _span(num_frames, longest, draw)
        masked_CM[:, start:stop] = mean
    return masked_CM


def _span(length: int, longest: int, draw: np.random.Generator) -> tuple[int, int]:
    """Of 0 to ``longest`` places, somewhere in ``[0, length)``."""
    width = int(draw.integers(longest + 1))
    start = int(draw.integers(length - width + 1))
    return start, start + width
