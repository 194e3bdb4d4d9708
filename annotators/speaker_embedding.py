"""The voice of a clip as a vector, by the speaker encoder in the Resemblyzer wheel (GE2E, Wan et al. 2018).

Only frames in which the clip set's VAD hears speech and its diarization no second speaker are embedded: a vector of two
voices at once lies between both and finds neither again. Windows touch instead of overlapping by half, as the package's do:
half the cost, and readers are told apart as well (docs/decisions/0009).

Shape legend: S samples, F mel frames of 10 ms, M mel bands, D embedding width (256).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.silence import is_silent
from annotators.speaker_encoder import FRAMES_A_SECOND, PARTIAL_FRAMES, encoder_model, encoder_path
from annotators.weights import path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

ADDS = pa.schema(
    [
        field("embedding", pa.list_(pa.float32()), "voice as a unit vector of 256; cosine compares two; null when abstained"),
        field("embedded_s", pa.float32(), "seconds of speech of one voice alone that the vector stands on"),
    ]
)


class SpeakerEmbeddingConfig(AnnotatorConfigBase):
    """Speaker embedding; a clip with less than ``min_voice_s`` of speech of one voice alone gets none."""

    kind: Literal["speaker_embedding"] = "speaker_embedding"
    min_voice_s: float = Field(default=1.0, gt=0, description="speech without a second voice that a vector needs")

    def build(self) -> SpeakerEmbedding:
        return SpeakerEmbedding(self)


class SpeakerEmbedding:
    """Annotator: one unit vector a clip; abstains with too little speech and below -80 dBFS."""

    name = "speaker_embedding"
    version = "3"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ("clip",)
    adds = ADDS
    batch_tolerance = 1e-5  # matrix products round differently with the number of windows in a call
    # In the pool of diarization, which holds torch and the encoder too.
    resources = Resources(pool="diarization", num_cpus=1.0, memory_bytes=1 << 30)

    def __init__(self, config: SpeakerEmbeddingConfig) -> None:
        self.config = config
        self._encoder: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (encoder_model(),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity(), path_digest(encoder_path()))

    def setup(self) -> None:
        if self._encoder is None:
            encoder_path()  # a missing wheel is told before the slow import
            import torch

            from annotators.speaker_encoder import SpeakerEncoder

            torch.set_num_threads(1)
            self._encoder = SpeakerEncoder()

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        rows: list[dict[str, Any] | None] = [None] * len(batch)
        voices = {}
        for row, (clip, audio_S) in enumerate(zip(batch.layers["clip"].to_pylist(), batch.audio, strict=True)):
            voice_FM = self._voice(clip, audio_S)
            if voice_FM is not None:
                voices[row] = voice_FM
        # All clips at once: the network is twice as fast on many windows as on the few of a clip.
        vectors_ND = self._encoder.embed(list(voices.values()), hop_frames=PARTIAL_FRAMES)
        for (row, voice_FM), vector_D in zip(voices.items(), vectors_ND, strict=True):
            if np.isfinite(vector_D).all():
                rows[row] = {"embedding": vector_D.tolist(), "embedded_s": len(voice_FM) / FRAMES_A_SECOND}
        return batch.table(rows, self.adds)

    def _voice(self, clip: dict[str, Any], audio_S: Audio) -> np.ndarray | None:
        """Mel power ``[F, M]`` of the frames with one voice alone; None with too few, or with nothing to hear in them."""
        num_frames = len(audio_S) * FRAMES_A_SECOND // MODEL_RATE_HZ + 1
        alone_F = _covered(clip["speech_spans"], clip["sample_rate_hz"], num_frames)
        alone_F &= ~_covered(clip["overlap_spans"], clip["sample_rate_hz"], num_frames)
        if alone_F.sum() < self.config.min_voice_s * FRAMES_A_SECOND or is_silent(audio_S):
            return None
        return np.asarray(self._encoder.features(audio_S)[alone_F])


def _covered(spans: list[dict[str, int]], sample_rate_hz: int, num_frames: int) -> np.ndarray:
    """Bool ``[F]``: frames whose centre, each 10 ms from the start of the clip, lies in a span."""
    covered_F = np.zeros(num_frames, bool)
    for span in spans:
        first, stop = (-(-span[edge] * FRAMES_A_SECOND // sample_rate_hz) for edge in ("start_sample", "end_sample"))
        covered_F[first:stop] = True
    return covered_F
