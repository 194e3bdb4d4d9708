"""Perceived quality by DNSMOS P.835 and P.808 (Reddy et al., ICASSP 2021 and 2022), from the graphs in the speechmos wheel.

The graphs are opened here, with one thread; the front end, the windows and the calibration polynomials are those of
the published scorer, and a test compares the two. Scores are about 16 kHz audio and live on the MOS scale, 1 to 5.
Clips cost a third of what the published scorer takes where their windows overlap (``dnsmos_p835``).

Shape legend: S samples, F frames, M mel bands, W windows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.dnsmos_p835 import P835Network
from annotators.mel import mel_power
from annotators.onnx_session import open_session
from annotators.weights import packaged_model, packaged_path, path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.ids import digest_json
from manifests.lineage import fingerprint
from manifests.schema import field

WINDOW_S = 9.01
WINDOW_SAMPLES = 144_160  # the length that both networks take
TAIL_SAMPLES = WINDOW_SAMPLES % MODEL_RATE_HZ
P808_SAMPLES = WINDOW_SAMPLES - 160  # the P.808 network takes 900 frames: the window without its last hop
P808_MELS, P808_FFT, P808_HOP = 120, 321, 160
# Polynomials that map the P.835 network's outputs to MOS, highest power first (published with the model).
CALIBRATION = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
GRAPHS = ("sig_bak_ovr.onnx", "model_v8.onnx")

ADDS = pa.schema(
    [
        field("dnsmos_sig", pa.float32(), "DNSMOS P.835 speech signal quality, MOS 1 to 5; null when abstained"),
        field("dnsmos_bak", pa.float32(), "DNSMOS P.835 background quality (5 = unnoticeable), MOS 1 to 5"),
        field("dnsmos_ovrl", pa.float32(), "DNSMOS P.835 overall quality, MOS 1 to 5"),
        field("dnsmos_p808", pa.float32(), "DNSMOS P.808 overall quality, MOS 1 to 5"),
    ]
)


class DnsmosConfig(AnnotatorConfigBase):
    """DNSMOS. A clip under ``min_clip_s`` or of digital silence gets no score: the window would be a loop of nothing."""

    kind: Literal["dnsmos"] = "dnsmos"
    min_clip_s: float = Field(default=0.5, gt=0, description="shorter clips are abstained from")
    hop_s: int = Field(default=1, ge=1, description="distance of the windows; 1 as published, more costs less on clips over 10 s")

    def build(self) -> Dnsmos:
        return Dnsmos(self)


class Dnsmos:
    """Annotator: four MOS estimates a clip, means over windows of 9.01 s every second; shorter clips are repeated."""

    name = "dnsmos"
    version = "2"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="dnsmos", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: DnsmosConfig) -> None:
        self.config = config
        self._p835: Any = None
        self._p808: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return tuple(packaged_model("MIT", "speechmos", "dnsmos_models", graph) for graph in GRAPHS)

    def fingerprint(self) -> str:
        weights = digest_json([path_digest(_graph_path(graph)) for graph in GRAPHS])
        return fingerprint(self.name, self.version, self.config.identity(), weights)

    def setup(self) -> None:
        if self._p808 is None:
            p835, p808 = (_graph_path(graph) for graph in GRAPHS)
            self._p835, self._p808 = P835Network(p835), open_session(p808)

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        return batch.table([self._score(audio) for audio in batch.audio], self.adds)

    def _score(self, audio_S: Audio) -> dict[str, float] | None:
        if len(audio_S) < self.config.min_clip_s * MODEL_RATE_HZ or not np.any(audio_S):
            return None
        audio_S = _filled(np.clip(audio_S, -1.0, 1.0).astype(np.float32))
        starts = _window_starts(len(audio_S))[:: self.config.hop_s]
        raw = np.mean([_calibrated(scores) for scores in self._p835.raw_scores(audio_S, starts)], axis=0)
        p808 = np.mean([self._p808_score(audio_S[start : start + P808_SAMPLES]) for start in starts])
        return {"dnsmos_sig": raw[0], "dnsmos_bak": raw[1], "dnsmos_ovrl": raw[2], "dnsmos_p808": p808}

    def _p808_score(self, window_S: Audio) -> float:
        return float(self._p808.run(None, {"input_1": _p808_features(window_S)[None]})[0][0, 0])


def _graph_path(graph: str) -> str:
    return packaged_path("speechmos", "dnsmos_models", graph)


def _filled(audio_S: Audio) -> Audio:
    """The audio, doubled until it fills a window, as the published scorer does."""
    while len(audio_S) < WINDOW_SAMPLES:
        audio_S = np.concatenate([audio_S, audio_S])
    return audio_S


def _window_starts(num_samples: int) -> list[int]:
    """First samples of the windows of 9.01 s, one a second.

    The published scorer computes window ends in floating point and leaves out those that round one sample short:
    windows 7 to 21, so of a clip of 17 to 30 s it hears the first 15 s. Scores are comparable only with the same windows.
    """
    count = int(num_samples // MODEL_RATE_HZ - WINDOW_S) + 1
    ends = [int((i + WINDOW_S) * MODEL_RATE_HZ) for i in range(count)]
    return [i * MODEL_RATE_HZ for i, end in enumerate(ends) if end % MODEL_RATE_HZ == TAIL_SAMPLES]


def _calibrated(raw: np.ndarray) -> list[float]:
    return [float(np.polyval(CALIBRATION[name], value)) for name, value in zip(("sig", "bak", "ovrl"), raw, strict=True)]


def _p808_features(window_S: Audio) -> np.ndarray:
    """Float32 ``[900, M]``: mel power in dB below the window's maximum, floored at -80, mapped to (dB + 40) / 40."""
    power_FM = mel_power(window_S, MODEL_RATE_HZ, P808_FFT, P808_HOP, P808_MELS)
    level_FM = 10.0 * np.log10(np.maximum(power_FM, 1e-10))
    level_FM -= 10.0 * np.log10(max(1e-10, float(power_FM.max())))
    return ((np.maximum(level_FM, level_FM.max() - 80.0) + 40.0) / 40.0).astype(np.float32)
