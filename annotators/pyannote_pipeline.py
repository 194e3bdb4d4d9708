"""Who speaks when, by a whole pyannote.audio pipeline from the hub or a folder, e.g. community-1, with its own settings.

The pipeline's networks and clustering are its own; what is added is the bound on memory for long recordings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from annotators.checkpoints import Checkpoint, check_device, find_checkpoint, network_identity
from annotators.diarization_stretches import DiarizationStretches
from annotators.pyannote_models import check_diarization, check_pickles, load_diarization
from annotators.weights import packaged_path
from manifests.contracts import ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.lineage import fingerprint


class PyannotePipelineConfig(SegmenterConfigBase):
    """A pyannote 4 diarization pipeline: hub id or folder with its config.yaml, networks beside it."""

    kind: Literal["pyannote_pipeline"] = "pyannote_pipeline"
    model: str = Field(
        default="pyannote/speaker-diarization-community-1",
        description="hub id (its licence must be accepted there) or local folder of the pipeline",
    )
    revision: str | None = Field(default=None, description="commit of the hub id; null: what is cached")
    may_download: bool = Field(default=False, description="fetch the pipeline where it is not on this machine")
    device: str = Field(default="cpu", description="cpu, or a CUDA GPU, e.g. cuda")
    stretch_s: float = Field(
        default=300.0, ge=30, description="longer recordings are worked on in equal stretches of at most this"
    )
    link_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=2,
        description="cosine distance, of the pipeline's own embeddings, at which speakers of two stretches are two; not fitted "
        "here, where no such pipeline is: fit it for the one in use",
    )

    def build(self) -> PyannotePipeline:
        return PyannotePipeline(self)


class PyannotePipeline(DiarizationStretches):
    """Segmenter: turns with labels ``speaker_0``, ``speaker_1``, … in order of first appearance; they may overlap."""

    name = "pyannote_pipeline"
    version = "1"

    def __init__(self, config: PyannotePipelineConfig) -> None:
        super().__init__(config.stretch_s, config.link_threshold)
        self.config = config

    @property
    def resources(self) -> Resources:
        num_gpus = 1.0 if self.config.device.startswith("cuda") else 0.0
        return Resources(pool=self.name, num_cpus=1.0, num_gpus=num_gpus, memory_bytes=3 << 30, batch_audio_s=3600.0)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (self._checkpoint().fact(),)

    def fingerprint(self) -> str:
        checkpoint = self._checkpoint()
        check_diarization(checkpoint)
        check_pickles(checkpoint)
        return fingerprint(self.name, self.version, network_identity(self.config), checkpoint.digest)

    def setup(self) -> None:
        if self._pipeline is not None:
            return
        packaged_path("pyannote", "audio")  # a missing wheel is told before the slow import
        check_device(self.config.device)
        import torch

        torch.set_num_threads(1)
        pipeline = load_diarization(self._checkpoint())
        pipeline.to(torch.device(self.config.device))
        self._pipeline = pipeline

    def _checkpoint(self) -> Checkpoint:
        return find_checkpoint(self.config.model, self.config.revision, may_download=self.config.may_download)
