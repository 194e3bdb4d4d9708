"""Who speaks when, by pyannote.audio's ``SpeakerDiarization`` without the hub.

The segmentation network comes in the whisperx wheel (three voices at most in 5 s, overlap included), the speaker encoder
in the Resemblyzer wheel; voices are joined by agglomerative clustering. The defaults were chosen on the reference
conversations of the test data, never on the conversation that pyannote ships (docs/quality.md has the sweep).
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, Literal

import numpy as np
from pydantic import Field

from annotators.pyannote_import import quiet_pyannote
from annotators.speaker_encoder import encoder_model, encoder_path
from annotators.speaker_links import SpeakerLinks
from annotators.weights import packaged_model, packaged_path, path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan, ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.ids import digest_json
from manifests.lineage import fingerprint
from manifests.spans import Span, merge

SEGMENTATION = ("assets", "pytorch_model.bin")  # pyannote's, of its project's licence
MIN_SAMPLES = MODEL_RATE_HZ // 4  # under 0.25 s no voice can be told
SILENT_PEAK = 1e-4  # -80 dBFS


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
        description="cosine distance at which speakers of two stretches are two; looser than in clustering, as pairs exclude each other",
    )

    def build(self) -> Diarization:
        return Diarization(self)


class Diarization:
    """Segmenter: turns with labels ``speaker_0``, ``speaker_1``, … in order of first appearance; they may overlap."""

    name = "pyannote"
    version = "1"
    resources = Resources(pool="diarization", num_cpus=1.0, memory_bytes=3 << 29, batch_audio_s=3600.0)

    def __init__(self, config: DiarizationConfig) -> None:
        self.config = config
        self._pipeline: Any = None

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

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        self.setup()
        audio_S = channel.audio
        stretch = int(self.config.stretch_s * MODEL_RATE_HZ)
        # Equal stretches: a short rest at the end would have too little speech to tell its voices.
        count = max(1, -(-len(audio_S) // stretch))
        edges = [len(audio_S) * i // count for i in range(count + 1)]
        links = SpeakerLinks(self.config.link_threshold)
        turns: dict[int, list[Span]] = {}
        for start, end in itertools.pairwise(edges):
            spans_by_voice, centroids_ND = self._diarize(audio_S[start:end])
            weights_N = np.array([sum(s.num_samples for s in spans) for spans in spans_by_voice], np.float64)
            for speaker, spans in zip(links.assign(centroids_ND, weights_N), spans_by_voice, strict=True):
                turns.setdefault(speaker, []).extend(Span(start + s.start_sample, start + s.end_sample) for s in spans)
        return _labelled({speaker: merge(spans) for speaker, spans in turns.items()})

    def _diarize(self, audio_S: Audio) -> tuple[list[list[Span]], np.ndarray]:
        """Turns of each voice of one stretch, relative to its start, and the voices' centroids ``[N, D]``."""
        if len(audio_S) < MIN_SAMPLES or float(np.abs(audio_S).max()) < SILENT_PEAK:
            return [], np.zeros((0, 1))
        import torch

        with warnings.catch_warnings():
            # With no voice heard for a second alone, pyannote takes the mean of no embeddings; SpeakerLinks knows what to do.
            warnings.filterwarnings("ignore", message="Mean of empty slice|invalid value encountered", category=RuntimeWarning)
            waveform = torch.from_numpy(np.ascontiguousarray(audio_S, dtype=np.float32))[None]
            output = self._pipeline({"waveform": waveform, "sample_rate": MODEL_RATE_HZ, "uri": "channel"})
        diarization = output.speaker_diarization
        voices = []
        for label in diarization.labels():
            segments = diarization.label_timeline(label)
            spans = [Span(round(s.start * MODEL_RATE_HZ), min(len(audio_S), round(s.end * MODEL_RATE_HZ))) for s in segments]
            voices.append([Span(max(0, s.start_sample), s.end_sample) for s in spans if s.num_samples > 0])
        return voices, output.speaker_embeddings


def _segmentation_path() -> str:
    return packaged_path("whisperx", *SEGMENTATION)


def _labelled(turns: dict[int, list[Span]]) -> list[HeardSpan]:
    """All turns by start; labels count speakers in the order in which they are first heard."""
    order = sorted((speaker for speaker in turns if turns[speaker]), key=lambda speaker: (turns[speaker][0], speaker))
    label = {speaker: f"speaker_{i}" for i, speaker in enumerate(order)}
    found = [HeardSpan(span, speaker_label=label[speaker]) for speaker in order for span in turns[speaker]]
    return sorted(found, key=lambda heard: (heard.span, heard.speaker_label))
