"""A voice of a VITS text-to-speech checkpoint by hub id or folder: MMS (over 1,100 languages) and all others of the type.

VITS draws noise for rhythm and timbre. The generator is seeded anew for every utterance, and nobody else's is touched.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from annotators.checkpoints import Checkpoint, check_device, check_type, find_checkpoint, loading, network_identity
from manifests.contracts import ModelFact, Resources, SynthesisedSpeech
from manifests.errors import ModelUnavailable, WorkError
from manifests.lineage import fingerprint
from manifests.recipes import RecipeModel

WHAT = "VITS text-to-speech model"


class HfVoiceConfig(RecipeModel):
    """A voice of a VITS checkpoint; other models of speech are `kind: custom`."""

    kind: Literal["hf_tts"] = "hf_tts"
    model: str = Field(description="folder or hub id of the checkpoint, e.g. facebook/mms-tts-eng")
    revision: str | None = Field(default=None, description="commit of the hub id")
    may_download: bool = Field(default=False, description="fetch a hub id that is not in the cache")
    language: str = Field(pattern=r"^[a-z]{2,3}$", description="ISO 639-1 of what the checkpoint speaks")
    speaker: int | None = Field(default=None, ge=0, description="number of the speaker, where the checkpoint has several")
    seed: int = Field(default=0, ge=0, description="of the noise that the model draws")
    device: Literal["cpu", "cuda"] = "cpu"

    def build(self) -> HfVoice:
        return HfVoice(self)


class HfVoice:
    """Synthesiser: at the checkpoint's rate, without word times."""

    name = "hf_tts"
    version = "1"

    def __init__(self, config: HfVoiceConfig) -> None:
        self.config = config
        self._loaded: tuple[Any, Any] | None = None  # tokenizer, network

    @property
    def language(self) -> str:
        return self.config.language

    @property
    def label(self) -> str:
        checkpoint = self._checkpoint()
        speaker = "" if self.config.speaker is None else f", speaker {self.config.speaker}"
        return f"{checkpoint.config['model_type']} {self.config.model}@{(checkpoint.revision or checkpoint.digest)[:12]}{speaker}"

    @property
    def resources(self) -> Resources:
        num_gpus = 1.0 if self.config.device == "cuda" else 0.0
        return Resources(pool="tts", num_cpus=1.0, num_gpus=num_gpus, memory_bytes=4 << 30)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (self._checkpoint().fact(),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, network_identity(self.config), self._checkpoint().digest)

    def setup(self) -> None:
        """Raises ModelUnavailable, also for a speaker that the checkpoint does not have."""
        if self._loaded is not None:
            return
        check_device(self.config.device)
        checkpoint = self._checkpoint()
        if self.config.speaker is not None and self.config.speaker >= checkpoint.config.get("num_speakers", 1):
            raise ModelUnavailable(
                f"model {checkpoint.name!r} has {checkpoint.config.get('num_speakers', 1)} speakers, counted from 0; "
                f"speaker {self.config.speaker} is none of them"
            )
        with loading(checkpoint, WHAT):
            from transformers import VitsModel, VitsTokenizer

            tokenizer = VitsTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
            network = VitsModel.from_pretrained(
                checkpoint.path, local_files_only=True, use_safetensors=checkpoint.has_safetensors
            )
        if tokenizer.is_uroman:
            raise ModelUnavailable(
                f"model {checkpoint.name!r} reads romanised text (uroman), which is not made here; "
                "give a checkpoint that reads its own script"
            )
        self._loaded = tokenizer, network.eval().to(self.config.device)

    def synthesise(self, text: str) -> SynthesisedSpeech:
        self.setup()
        import torch

        assert self._loaded is not None
        tokenizer, network = self._loaded
        tokens = tokenizer(text, return_tensors="pt").to(self.config.device)
        if not tokens["input_ids"].numel():
            raise WorkError(f"text {text!r} has no letter that model {self.config.model!r} knows; give words of its language")
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self.config.seed)
            waveform_1S = network(**tokens, speaker_id=self.config.speaker).waveform
        # Vocoders overshoot full scale now and then, and no integer file holds that.
        audio_S = waveform_1S[0].float().clamp(-1.0, 1.0).cpu().numpy()
        return SynthesisedSpeech(np.ascontiguousarray(audio_S), int(network.config.sampling_rate), None)

    def _checkpoint(self) -> Checkpoint:
        """Raises ModelUnavailable where it is missing, damaged, or does not speak."""
        checkpoint = find_checkpoint(self.config.model, self.config.revision, may_download=self.config.may_download)
        check_type(checkpoint, {"vits"}, WHAT)
        return checkpoint
