"""Speaker embeddings by the encoder in the Resemblyzer wheel: three LSTM layers over 1.6 s of mel power (GE2E, Wan et al. 2018).

Only the weights are taken from the wheel; its package needs modules that no longer build, and it is not imported.
The network takes *power*, not log-power, so the level matters: quiet speech is raised to -30 dBFS as in its training.

Shape legend: S samples, F mel frames, M mel bands (40), P partials of 160 frames, D embedding width (256).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from annotators.mel import mel_power
from annotators.weights import packaged_model, packaged_path
from manifests.contracts import MODEL_RATE_HZ, Audio, ModelFact
from manifests.mel import slaney_filters

WEIGHTS = ("pretrained.pt",)
NUM_MELS, WIDTH, NUM_LAYERS = 40, 256, 3
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160  # 25 ms, 10 ms
FRAMES_A_SECOND = MODEL_RATE_HZ // HOP_SAMPLES
PARTIAL_FRAMES = 160
PARTIAL_HOP_FRAMES = 80
TARGET_DBFS = -30.0
PARTIALS_A_BATCH = 24  # one core is fastest at 20 to 24; with more, the activations leave its cache
STRETCHES_AT_ONCE = 64


def encoder_path() -> str:
    return packaged_path("resemblyzer", *WEIGHTS)


def encoder_model() -> ModelFact:
    return packaged_model("Apache-2.0", "resemblyzer", *WEIGHTS)


class SpeakerEncoder:
    """Embeds stretches of mel power; needs torch, on the CPU."""

    def __init__(self) -> None:
        import torch

        weights = torch.load(encoder_path(), map_location="cpu", weights_only=True)["model_state"]
        self._lstm = torch.nn.LSTM(NUM_MELS, WIDTH, NUM_LAYERS, batch_first=True).eval()
        self._linear = torch.nn.Linear(WIDTH, WIDTH).eval()
        for layer, prefix in ((self._lstm, "lstm."), (self._linear, "linear.")):
            layer.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})

    def features(self, audio_S: Audio) -> np.ndarray:
        """Mel power float32 ``[F, M]`` of 16 kHz audio, one frame each 10 ms, centred; no level change."""
        return mel_power(audio_S, MODEL_RATE_HZ, WINDOW_SAMPLES, HOP_SAMPLES, NUM_MELS)

    def embed(self, stretches: Sequence[np.ndarray], hop_frames: int = PARTIAL_HOP_FRAMES) -> np.ndarray:
        """Unit vectors float32 ``[len(stretches), D]`` for mel power stretches ``[F, M]`` of at least one frame each.

        A stretch is raised to -30 dBFS when it is below, cut into partials of 1.6 s at most ``hop_frames`` apart (a shorter
        one is repeated), and its embedding is the normalised mean of theirs. NaN where the network answers nothing.
        """
        embeddings = [np.zeros((0, WIDTH), np.float32)]
        # In groups: the overlapping partials of an hour's stretches would take gigabytes.
        for first in range(0, len(stretches), STRETCHES_AT_ONCE):
            partials = [_partials(stretch_FM, hop_frames) for stretch_FM in stretches[first : first + STRETCHES_AT_ONCE]]
            vectors_PD = self._forward(np.concatenate(partials))
            edges = np.cumsum([0, *(len(p) for p in partials)])
            means = np.stack([vectors_PD[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])
            with np.errstate(invalid="ignore"):
                embeddings.append((means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32))
        return np.concatenate(embeddings)

    def _forward(self, partials_PFM: np.ndarray) -> np.ndarray:
        import torch

        out: list[Any] = []
        num_batches = -(-len(partials_PFM) // PARTIALS_A_BATCH)
        with torch.inference_mode():
            for batch_PFM in np.array_split(partials_PFM, num_batches):  # of one size: a small last one would run at half speed
                _, (hidden, _) = self._lstm(torch.from_numpy(batch_PFM))
                raw_PD = torch.relu(self._linear(hidden[-1]))
                out.append(torch.nn.functional.normalize(raw_PD, dim=1).numpy())
        return np.concatenate(out)


def _partials(mel_FM: np.ndarray, hop_frames: int) -> np.ndarray:
    """Float32 ``[P, 160, M]`` level-corrected windows over a stretch."""
    mel_FM = mel_FM * _gain(mel_FM)
    if len(mel_FM) < PARTIAL_FRAMES:
        mel_FM = np.resize(mel_FM, (PARTIAL_FRAMES, mel_FM.shape[1]))
    count = -(-(len(mel_FM) - PARTIAL_FRAMES) // hop_frames) + 1
    starts = np.linspace(0, len(mel_FM) - PARTIAL_FRAMES, count).astype(int)
    return np.stack([mel_FM[start : start + PARTIAL_FRAMES] for start in starts]).astype(np.float32)


def _gain(mel_FM: np.ndarray) -> float:
    """Power factor that raises the stretch to -30 dBFS; 1 when it is louder.

    The level is read off the mel bands: weights under which the filters sum to one give the power of all bins, and
    Parseval's theorem (with the mean square of the Hann window, 3/8) the mean square of the samples.
    """
    power = float((mel_FM @ _band_weights()).mean()) * 2.0 / (WINDOW_SAMPLES**2 * 0.375)
    target = 10.0 ** (TARGET_DBFS / 10.0)
    return target / power if 0.0 < power < target else 1.0


@functools.lru_cache(maxsize=1)
def _band_weights() -> np.ndarray:
    """Float64 ``[M]``: the weighted sum of the filters is one over all bins, as nearly as they can (least squares)."""
    filters_KM = slaney_filters(MODEL_RATE_HZ, WINDOW_SAMPLES, NUM_MELS).T
    weights_M, *_ = np.linalg.lstsq(filters_KM.astype(np.float64), np.ones(len(filters_KM)))
    return np.asarray(weights_M)
