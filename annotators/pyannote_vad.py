"""Voice activity by pyannote.audio's ``VoiceActivityDetection``: speech where its segmentation network hears any voice.

The network comes in the whisperx wheel, or by hub id or folder (``pytorch_model.bin``).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from annotators.checkpoints import Checkpoint, find_checkpoint, network_identity
from annotators.diarization_stretches import as_file, has_sound, spans_of, stretches
from annotators.pyannote_import import quiet_pyannote
from annotators.pyannote_models import NETWORK_FILE, check_pickles, load_network
from annotators.weights import packaged_model, packaged_path
from manifests.contracts import MODEL_RATE_HZ, ChannelAudio, HeardSpan, ModelFact, Resources
from manifests.gates import SegmenterConfigBase
from manifests.lineage import fingerprint
from manifests.spans import Span, merge

ASSETS = "assets"  # of the whisperx wheel, which holds nothing else than the network and mel filters
STRETCH_SAMPLES = 300 * MODEL_RATE_HZ  # bounds memory
BATCH_WINDOWS = 16


class PyannoteVadConfig(SegmenterConfigBase):
    """pyannote VAD; the defaults are those under which whisperx runs the network that it ships."""

    kind: Literal["pyannote_vad"] = "pyannote_vad"
    model: str | None = Field(
        default=None, description="hub id or folder of a pyannote segmentation network; null: the bundled one"
    )
    revision: str | None = Field(default=None, description="commit of the hub id; null: what is cached")
    may_download: bool = Field(default=False, description="fetch the network where it is not on this machine")
    onset: float = Field(default=0.5, gt=0, lt=1, description="activity at which speech begins; powerset networks need none")
    offset: float = Field(default=0.363, gt=0, lt=1, description="activity below which it ends")
    min_speech_s: float = Field(default=0.1, ge=0, le=1, description="shorter speech is left out")
    min_silence_s: float = Field(default=0.1, ge=0, le=1, description="shorter silence is filled")

    def build(self) -> PyannoteVad:
        return PyannoteVad(self)


class PyannoteVad:
    """Segmenter: spans of speech, without probabilities: pyannote tells none for a span."""

    name = "pyannote_vad"
    version = "1"
    resources = Resources(pool="diarization", num_cpus=1.0, memory_bytes=3 << 29, batch_audio_s=3600.0)

    def __init__(self, config: PyannoteVadConfig) -> None:
        self.config = config
        self._pipeline: Any = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        if self.config.model is None:
            return (packaged_model("MIT", "whisperx", ASSETS, NETWORK_FILE),)
        return (self._checkpoint().fact(),)

    def fingerprint(self) -> str:
        (model,) = self.models
        if self.config.model is not None:
            check_pickles(self._checkpoint())
        return fingerprint(self.name, self.version, network_identity(self.config), model.digest)

    def setup(self) -> None:
        if self._pipeline is not None:
            return
        packaged_path("pyannote", "audio")  # a missing wheel is told before the slow import
        with quiet_pyannote():
            import torch
            from pyannote.audio.pipelines import VoiceActivityDetection

            torch.set_num_threads(1)
            network = load_network(self._checkpoint())
            pipeline = VoiceActivityDetection(segmentation=network, batch_size=BATCH_WINDOWS)
            durations = {"min_duration_on": self.config.min_speech_s, "min_duration_off": self.config.min_silence_s}
            is_powerset = network.specifications.powerset
            pipeline.instantiate(
                durations if is_powerset else {"onset": self.config.onset, "offset": self.config.offset, **durations}
            )
        self._pipeline = pipeline

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        self.setup()
        found: list[Span] = []
        for start, end in stretches(len(channel.audio), STRETCH_SAMPLES):
            audio_S = channel.audio[start:end]
            if has_sound(audio_S):
                speech = self._pipeline(as_file(audio_S)).get_timeline().support()
                found += [Span(start + s.start_sample, start + s.end_sample) for s in spans_of(speech, len(audio_S))]
        return [HeardSpan(span) for span in merge(found)]

    def _checkpoint(self) -> Checkpoint:
        if self.config.model is None:
            return find_checkpoint(packaged_path("whisperx", ASSETS))
        return find_checkpoint(self.config.model, self.config.revision, may_download=self.config.may_download)
