"""Who speaks when, by pyannote.audio's ``SpeakerDiarization`` without the hub.

The segmentation network comes in the whisperx wheel (three voices at most in 5 s, overlap included), the speaker encoder
in the Resemblyzer wheel; voices are joined by agglomerative clustering. The defaults were chosen on the reference
conversations of the test data, never on the conversation that pyannote ships (docs/quality.md has the sweep).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from annotators.diarization_stretches import DiarizationStretches
from annotators.pyannote_import import quiet_pyannote
from annotators.speaker_encoder import encoder_model, encoder_path
from annotators.weights import packaged_model, packaged_path, path_digest
from manifests.contracts import ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.ids import digest_json
from manifests.lineage import fingerprint

SEGMENTATION = ("assets", "pytorch_model.bin")  # pyannote's, of its project's licence


class DiarizationConfig(SegmenterConfigBase):
    """pyannote diarization; see docs/quality.md for how the defaults were chosen."""

    kind: Literal["pyannote"] = "pyannote"
    clustering_method: Literal["average", "centroid", "complete"] = "centroid"
    clustering_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=2,
        description="distance at which two voices are two speakers: Euclidean between unit vectors for centroid, else cosine",
    )
    min_cluster_size: int = Field(default=12, ge=1, le=20, description="smaller clusters join the nearest large one")
    segmentation_threshold: float = Field(default=0.6, ge=0.1, le=0.9, description="activity at which a voice is heard")
    segmentation_step: float = Field(default=0.1, gt=0, le=0.5, description="hop of the 5 s windows, as a part of their length")
    min_pause_s: float = Field(default=0.5, ge=0, le=1, description="shorter pauses of one speaker are filled")
    stretch_s: float = Field(
        default=300.0,
        ge=30,
        description="longer recordings are worked on in equal stretches of at most this, whose speakers are then linked",
    )
    link_threshold: float = Field(
        default=0.25,
        gt=0,
        lt=2,
        description="cosine distance at which speakers of two stretches are two; looser than in clustering, "
        "as pairs exclude each other",
    )

    def build(self) -> Diarization:
        return Diarization(self)


class Diarization(DiarizationStretches):
    """Segmenter: turns with labels ``speaker_0``, ``speaker_1``, … in order of first appearance; they may overlap."""

    name = "pyannote"
    version = "2"
    resources = Resources(pool="diarization", num_cpus=1.0, memory_bytes=3 << 29, batch_audio_s=3600.0)

    def __init__(self, config: DiarizationConfig) -> None:
        super().__init__(config.stretch_s, config.link_threshold)
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (packaged_model("MIT", "whisperx", *SEGMENTATION), encoder_model())

    def fingerprint(self) -> str:
        weights = digest_json([path_digest(_segmentation_path()), path_digest(encoder_path())])
        return fingerprint(self.name, self.version, self.config.identity(), weights)

    def setup(self) -> None:
        if self._pipeline is not None:
            return
        path = _segmentation_path()
        encoder_path()  # a missing wheel is told before the slow import
        packaged_path("pyannote", "audio")
        with quiet_pyannote():
            import torch

            from annotators.diarization_pipeline import load_pipeline

            torch.set_num_threads(1)
            pipeline = load_pipeline(path, self.config.segmentation_step)
        self.configure(pipeline)
        self._pipeline = pipeline

    def configure(self, pipeline: Any) -> None:
        """Give a loaded pipeline this part's settings; the networks stay as they are."""
        pipeline.instantiate(
            {
                "segmentation": {
                    "threshold": self.config.segmentation_threshold,
                    "min_duration_off": self.config.min_pause_s,
                },
                "clustering": {
                    "threshold": self.config.clustering_threshold,
                    "method": self.config.clustering_method,
                    "min_cluster_size": self.config.min_cluster_size,
                },
            }
        )


def _segmentation_path() -> str:
    return packaged_path("whisperx", *SEGMENTATION)
