"""S3 tokenizer v2 (25 Hz, 6561 codes), the codec of the published model, on weights from a local path.

Only encoding: the way back to audio is the published flow-matching detokenizer, which is another model. Importing this
module is light; torch and s3tokenizer load in ``setup``.

The network takes 30 s. The package's own way through longer audio loses up to 2 s of codes just above 52 s and 78 s, so long
audio runs through windows of ours. Attention sees the whole of a window: no overlap makes the codes wholly those of one
pass, but this one makes codes at a seam as likely equal to them as codes elsewhere (`benchmarks/codec_seams.py`).

S audio samples, N spectrum frames (100 a second), F code frames (25 a second), M mel bins.
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
from tokenization.windows import windows

if TYPE_CHECKING:
    from torch import Tensor

HOP_SAMPLES = 160
FRAMES_PER_CODE = 4
WINDOW_FRAMES = 750  # 30 s
OVERLAP_FRAMES = 100  # 4 s: each side of a seam hears 2 s beyond it
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
    version = "2"
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
        """``ceil(floor(max(S, 400) / 160) / 4)`` for S > 0 samples, however many: no samples, no frames.

        Two convolutions halve the ``floor(S / 160)`` spectrum frames, each rounding up.
        """
        return -(-(max(num_samples, SHORTEST_SAMPLES) // HOP_SAMPLES) // FRAMES_PER_CODE) if num_samples else 0

    def encode(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Codes uint16 ``[F]`` of each item at 16 kHz; each item runs alone, and above 30 s in windows."""
        self.setup()
        return [check_codes(self._encode(item), len(item), self) for item in audio]

    def decode(self, codes: np.ndarray) -> Audio:
        """Always RequestError: the codes alone do not hold the sound."""
        raise RequestError(
            f"codec 's3' cannot turn {len(codes)} codes into audio: it is an encoder only; use the published token2wav "
            "detokenizer, or a tokenizer with the fsq codec"
        )

    def _encode(self, item: Audio) -> np.ndarray:
        import torch
        from s3tokenizer.utils import log_mel_spectrogram

        if len(item) == 0:
            return np.zeros(0, np.uint16)
        filled = np.pad(np.asarray(item, np.float32), (0, max(0, SHORTEST_SAMPLES - len(item))))
        with torch.inference_mode(), one_thread():
            # Of the whole item: its floor lies below the loudest of all frames, as in one pass.
            mel_MN = log_mel_spectrogram(torch.from_numpy(filled), self._num_mels)
            parts = [
                self._encode_window(mel_MN[:, FRAMES_PER_CODE * window.start : FRAMES_PER_CODE * window.stop])[window.kept]
                for window in windows(-(-mel_MN.shape[1] // FRAMES_PER_CODE), WINDOW_FRAMES, OVERLAP_FRAMES)
            ]
        return np.concatenate(parts)

    def _encode_window(self, mel_MN: Tensor) -> np.ndarray:
        import torch

        codes_BF, lengths_B = self._model.quantize(mel_MN[None], torch.tensor([mel_MN.shape[1]]))
        codes: np.ndarray = codes_BF[0, : int(lengths_B[0])].numpy().astype(np.uint16)
        return codes

    def _path(self) -> str:
        path = self.config.weights_path
        if not os.path.isfile(path):
            raise ModelUnavailable(
                f"codec 's3': no weights at {path!r}; fetch speech_tokenizer_v2_25hz.onnx (in the folder token2wav of the "
                "published checkpoint) and set codec.weights_path to it"
            )
        return path


def _read_weights(path: str) -> Mapping[str, Tensor]:
    """State dict under the package's names. Raises MismatchError for a file that is none."""
    import torch
    from s3tokenizer.utils import onnx2torch

    try:
        loaded = onnx2torch(path) if path.endswith(".onnx") else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both parsers raise whatever they stumble over first
        raise MismatchError(
            f"codec 's3': {path!r} is neither .onnx nor a state dict ({' '.join(str(error).split())[:120]}); "
            "give speech_tokenizer_v2_25hz.onnx"
        ) from error
    if not isinstance(loaded, Mapping):
        raise MismatchError(f"codec 's3': {path!r} holds {type(loaded).__name__}; it must be a state dict")
    return loaded
