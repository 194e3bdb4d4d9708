"""S3 tokenizer v2 (25 Hz, 6561 codes), the codec of the published model, on weights from a local path.

Only encoding: the way back to audio is the published flow-matching detokenizer, which is another model. Importing this
module is light; torch and s3tokenizer load in ``setup``.

S audio samples, M spectrum frames (100 a second).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from manifests.contracts import MODEL_RATE_HZ, Audio, ModelFact, Resources, check_codes
from manifests.errors import MismatchError, ModelUnavailable, RequestError
from manifests.lineage import fingerprint, weights_digest
from manifests.recipes import RecipeModel
from tokenization.codec import one_thread
from tokenization.vocabulary import NUM_CODES

if TYPE_CHECKING:
    from torch import Tensor

HOP_SAMPLES = 160
FRAMES_PER_CODE = 4
# The network's own limit is 30 s; the package's sliding windows lose codes near 52 s and 78 s, so it never sees more.
WINDOW_SAMPLES = 30 * MODEL_RATE_HZ
# The spectrum reflects 200 samples at each end: less audio than its 400-sample window is filled with silence.
SHORTEST_SAMPLES = 400
HEAD_WIDTH = 64  # the package fixes its rotary table to heads of 64


class S3Config(RecipeModel):
    """S3 tokenizer v2."""

    kind: Literal["s3"]
    weights_path: str = Field(description="local speech_tokenizer_v2_25hz.onnx, or a .pt state dict converted from it")


class S3Codec:
    """Satisfies ``manifests.contracts.AudioCodec``, except that ``decode`` refuses."""

    name = "s3"
    version = "1"
    frame_rate_hz = MODEL_RATE_HZ / (HOP_SAMPLES * FRAMES_PER_CODE)
    num_codes = NUM_CODES
    sample_rate_hz = MODEL_RATE_HZ
    resources = Resources(pool="codec", num_cpus=1.0, memory_bytes=3 << 30, batch_audio_s=120.0)

    def __init__(self, config: S3Config) -> None:
        self.config = config
        self._model: Any = None
        self._num_mels = 0
        self._fingerprint: str | None = None

    def __reduce__(self) -> tuple[type[S3Codec], tuple[S3Config]]:
        return (S3Codec, (self.config,))

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (ModelFact(self._path(), None, weights_digest(self._path()), "Apache-2.0"),)

    def fingerprint(self) -> str:
        """Over the code's version and the weights, wherever they lie. Raises ModelUnavailable where they are absent."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.name, self.version, {}, weights_digest(self._path()))
        return self._fingerprint

    def setup(self) -> None:
        """Raises ModelUnavailable where weights or package are absent, MismatchError for weights of another model."""
        if self._model is not None:
            return
        path = self._path()
        try:
            from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
        except ImportError as error:
            raise ModelUnavailable(
                f"codec 's3' needs the package s3tokenizer ({error}); install stepwell[tokenization]"
            ) from error
        weights = _read_weights(path)
        first = weights.get("encoder.conv1.weight")
        if first is None or "quantizer._codebook.project_down.weight" not in weights:
            raise MismatchError(f"codec 's3': {path!r} holds no S3 tokenizer v2; give speech_tokenizer_v2_25hz.onnx")
        width, self._num_mels = int(first.shape[0]), int(first.shape[1])
        layers = {name.split(".")[2] for name in weights if name.startswith("encoder.blocks.")}
        shape = ModelConfig(
            n_mels=self._num_mels, n_audio_state=width, n_audio_head=max(1, width // HEAD_WIDTH), n_audio_layer=len(layers)
        )
        # The package reads the token rate off the name, so the name is fixed here and not the file's.
        model = S3TokenizerV2("speech_tokenizer_v2_25hz", shape)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise MismatchError(
                f"codec 's3': weights in {path!r} do not fit S3 tokenizer v2 ({' '.join(str(error).split())[:200]}); "
                "give speech_tokenizer_v2_25hz.onnx"
            ) from error
        self._model = model.eval()

    def expected_frames(self, num_samples: int) -> int:
        """750 for each whole window of 30 s; for the rest of S > 0 samples, ``ceil(floor(max(S, 400) / 160) / 4)``.

        Two convolutions halve the ``floor(S / 160)`` spectrum frames, each rounding up. No samples, no frames.
        """
        whole, rest = divmod(num_samples, WINDOW_SAMPLES)
        per_window = WINDOW_SAMPLES // (HOP_SAMPLES * FRAMES_PER_CODE)
        return whole * per_window + (-(-(max(rest, SHORTEST_SAMPLES) // HOP_SAMPLES) // FRAMES_PER_CODE) if rest else 0)

    def encode(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Codes uint16 of each item at 16 kHz; items and windows of 30 s run alone, so counts are exact."""
        self.setup()
        return [check_codes(self._encode(item), len(item), self) for item in audio]

    def decode(self, codes: np.ndarray) -> Audio:
        """Always RequestError: the codes alone do not hold the sound."""
        raise RequestError(
            f"codec 's3' cannot turn {len(codes)} codes into audio: it is an encoder only; use the published token2wav "
            "detokenizer, or a tokenizer with the fsq codec"
        )

    def _encode(self, item: Audio) -> np.ndarray:
        starts = range(0, len(item), WINDOW_SAMPLES)
        parts = [self._encode_window(np.asarray(item[start : start + WINDOW_SAMPLES], np.float32)) for start in starts]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint16)

    def _encode_window(self, audio: Audio) -> np.ndarray:
        import torch
        from s3tokenizer.utils import log_mel_spectrogram

        filled = np.pad(audio, (0, max(0, SHORTEST_SAMPLES - len(audio))))
        with torch.inference_mode(), one_thread():
            mel = log_mel_spectrogram(torch.from_numpy(filled), self._num_mels)
            codes, lengths = self._model.quantize(mel[None], torch.tensor([mel.shape[1]]))
        return codes[0, : int(lengths[0])].numpy().astype(np.uint16)

    def _path(self) -> str:
        path = self.config.weights_path
        if not os.path.isfile(path):
            raise ModelUnavailable(
                f"codec 's3': no weights at {path!r}; fetch speech_tokenizer_v2_25hz.onnx (in the folder token2wav of the "
                "published checkpoint) and set codec.weights_path to it"
            )
        return path


def _read_weights(path: str) -> Mapping[str, Tensor]:
    """State dict under the package's names."""
    if path.endswith(".onnx"):
        from s3tokenizer.utils import onnx2torch

        weights: Mapping[str, Tensor] = onnx2torch(path)
        return weights
    import pickle

    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise MismatchError(
            f"codec 's3': {path!r} is neither .onnx nor a state dict ({' '.join(str(error).split())[:120]}); "
            "give speech_tokenizer_v2_25hz.onnx"
        ) from error
    if not isinstance(loaded, Mapping):
        raise MismatchError(f"codec 's3': {path!r} holds {type(loaded).__name__}; it must be a state dict")
    return loaded
