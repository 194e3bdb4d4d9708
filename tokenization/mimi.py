"""Mimi's first codebook as a codec: 12.5 codes a second of 24 kHz audio, on a checkpoint in a local folder.

The first codebook is the one that was trained to agree with a speech model: it carries what is said (Défossez et al. 2024,
arXiv 2410.00037). The others, which carry how it sounds, have no place in a vocabulary of one code a frame. Rate, size and
sample rate are those of the checkpoint. Importing this module is light; torch and transformers load in ``setup``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from manifests.contracts import Audio, ModelFact, Resources, check_codes
from manifests.errors import MismatchError, ModelUnavailable
from manifests.lineage import fingerprint, weights_digest
from manifests.recipes import RecipeModel
from tokenization.codec import check_decodable, one_thread
from tokenization.windows import windows

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WINDOW_S = 240.0  # the network's positions end at 320 s, and its attention mask grows with the square
OVERLAP_S = 40.0


class MimiConfig(RecipeModel):
    """Mimi through ``transformers``."""

    kind: Literal["mimi"]
    checkpoint: str = Field(description="local folder with config.json and model.safetensors, as a copy of kyutai/mimi has them")


class MimiCodec:
    """Satisfies ``manifests.contracts.AudioCodec``."""

    name = "mimi"
    version = "1"
    resources = Resources(pool="codec", num_cpus=1.0, memory_bytes=2 << 30, batch_audio_s=120.0)

    def __init__(self, config: MimiConfig) -> None:
        self.config = config
        self._model: Any = None
        self._fingerprint: str | None = None

    def __reduce__(self) -> tuple[type[MimiCodec], tuple[MimiConfig]]:
        return (MimiCodec, (self.config,))

    @cached_property
    def _shape(self) -> dict[str, Any]:
        """``config.json``. Raises ModelUnavailable where it is absent, MismatchError for another model's."""
        path = self._path(CONFIG)
        try:
            with open(path, encoding="utf-8") as file:
                shape: dict[str, Any] = json.load(file)
        except json.JSONDecodeError as error:
            raise MismatchError(f"codec 'mimi': {path!r} is not JSON ({error}); give the folder of a Mimi checkpoint") from error
        if shape.get("model_type") != "mimi":
            raise MismatchError(
                f"codec 'mimi': {path!r} is of the model type {shape.get('model_type')!r}; give the folder of a Mimi checkpoint"
            )
        return shape

    @property
    def sample_rate_hz(self) -> int:
        return int(self._shape["sampling_rate"])

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self._frame_samples

    @property
    def num_codes(self) -> int:
        return int(self._shape["codebook_size"])

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (ModelFact(self.config.checkpoint, None, weights_digest(self._path(WEIGHTS)), None),)

    def fingerprint(self) -> str:
        """Over the code's version, the configuration and the weights. Raises ModelUnavailable where the files are absent."""
        if self._fingerprint is None:
            digest = weights_digest(self._path(WEIGHTS))
            self._fingerprint = fingerprint(self.name, self.version, self._shape, digest)
        return self._fingerprint

    def setup(self) -> None:
        """Raises ModelUnavailable where files or package are absent, MismatchError where weights do not fit the configuration."""
        if self._model is not None:
            return
        self.fingerprint()  # says which file is absent, or that it is another model's; transformers would not
        try:
            from safetensors import SafetensorError
            from transformers import MimiModel
        except ImportError as error:
            raise ModelUnavailable(
                f"codec 'mimi' needs the package transformers ({error}); install stepwell[tokenization]"
            ) from error
        try:
            model, loaded = MimiModel.from_pretrained(
                self.config.checkpoint, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise MismatchError(
                f"codec 'mimi': {self.config.checkpoint!r} cannot be loaded ({' '.join(str(error).split())[:200]}); "
                "give the folder of a Mimi checkpoint"
            ) from error
        if missing := sorted(loaded["missing_keys"]):
            raise MismatchError(
                f"codec 'mimi': {WEIGHTS} in {self.config.checkpoint!r} lacks {missing[:3]}; give the folder of a Mimi checkpoint"
            )
        self._model = model.eval()

    def expected_frames(self, num_samples: int) -> int:
        """``ceil(S / 1920)`` at 24 kHz and 12.5 a second: each convolution fills its last frame with silence."""
        return -(-num_samples // self._frame_samples)

    def encode(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Codes uint16 ``[F]`` of each item at 24 kHz; each item runs alone, and above four minutes in windows."""
        self.setup()
        return [check_codes(self._encode(item), len(item), self) for item in audio]

    def decode(self, codes: np.ndarray) -> Audio:
        """Audio float32 ``[1920 F]`` at 24 kHz for codes ``[F]``: the words, hardly the voice. Raises ContractError."""
        import torch

        self.setup()
        if len(codes) == 0:
            return np.zeros(0, np.float32)
        check_decodable(codes, self)
        with torch.inference_mode(), one_thread():
            audio = self._model.decode(torch.from_numpy(np.asarray(codes, np.int64))[None, None]).audio_values[0, 0]
        decoded: Audio = audio.clamp(-1.0, 1.0).numpy()
        return decoded

    def _encode(self, item: Audio) -> np.ndarray:
        import torch

        frames = self._frame_samples
        parts = [np.zeros(0, np.uint16)]
        size, overlap = round(WINDOW_S * self.frame_rate_hz), round(OVERLAP_S * self.frame_rate_hz)
        for window in windows(self.expected_frames(len(item)), size, overlap):
            heard = torch.from_numpy(np.asarray(item[frames * window.start : frames * window.stop], np.float32))
            with torch.inference_mode(), one_thread():
                codes = self._model.encode(heard[None, None], num_quantizers=1).audio_codes[0, 0]
            parts.append(codes.numpy().astype(np.uint16)[window.kept])
        return np.concatenate(parts)

    @property
    def _frame_samples(self) -> int:
        # Strides of the encoder's convolutions, and of the one behind its attention, which halves the rate.
        return 2 * int(np.prod(self._shape["upsampling_ratios"]))

    def _path(self, name: str) -> str:
        path = os.path.join(self.config.checkpoint, name)
        if not os.path.isfile(path):
            raise ModelUnavailable(
                f"codec 'mimi': no {name} in {self.config.checkpoint!r}; set codec.checkpoint to a local copy of kyutai/mimi"
            )
        return path
