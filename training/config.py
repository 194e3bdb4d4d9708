"""Sizes of the model as frozen configurations, and as what it is exported. Plain classes: the model runs where torch alone is installed.

The weights' names do not depend on the size (reference, section 1.3). Sizes named in billions are the text model's by
whose name they go: its embedding is counted once there, since the smaller ones tie it to the head; here it is not tied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manifests.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A Whisper-type encoder: two convolutions (the second halves the rate), pre-norm blocks, pooling by two."""

    num_mels: int = 128
    num_positions: int = 1500  # at 50 Hz: 30 s
    width: int
    num_heads: int
    num_layers: int


@dataclass(frozen=True, kw_only=True)
class AdaptorConfig:
    """The convolution that halves the rate, then two linear layers."""

    kernel_frames: int = 3
    stride_frames: int = 2
    inner_width: int = 2048


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A Qwen2-type decoder."""

    width: int
    inner_width: int
    num_heads: int
    num_kv_heads: int
    num_layers: int
    rope_theta: float = 1e6
    norm_eps: float = 1e-6
    max_positions: int = 16_384

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads


class Part(StrEnum):
    """What of a run is exported."""

    MODEL = "model"  # all of it, in the layout of the published checkpoint
    DECODER = "decoder"  # decoder and head, as transformers' Qwen2ForCausalLM


class Dtype(StrEnum):
    """The type that exported weights are stored in."""

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything about the model's shape except its vocabulary, which the tokenizer brings."""

    encoder: EncoderConfig
    adaptor: AdaptorConfig
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        if encoder.width % encoder.num_heads or decoder.width % decoder.num_heads or decoder.num_heads % decoder.num_kv_heads:
            raise ValueError("widths must be multiples of their number of heads, and heads of the key-value heads")


# The encoder of Qwen2-Audio, which the published model and every size that starts from Qwen2.5 have.
QWEN2_AUDIO = EncoderConfig(width=1280, num_heads=20, num_layers=32)


def _on_qwen(width: int, inner_width: int, num_heads: int, num_kv_heads: int, num_layers: int) -> ModelConfig:
    """A decoder of the Qwen2.5 family behind Qwen2-Audio's encoder and the published adaptor."""
    decoder = DecoderConfig(
        width=width, inner_width=inner_width, num_heads=num_heads, num_kv_heads=num_kv_heads, num_layers=num_layers
    )
    return ModelConfig(encoder=QWEN2_AUDIO, adaptor=AdaptorConfig(), decoder=decoder)


SIZES: dict[str, ModelConfig] = {
    # For golden curves and tests of the machinery.
    "micro": ModelConfig(
        encoder=EncoderConfig(num_mels=40, width=32, num_heads=2, num_layers=1),
        adaptor=AdaptorConfig(inner_width=32),
        decoder=DecoderConfig(width=32, inner_width=64, num_heads=2, num_kv_heads=1, num_layers=2, rope_theta=1e4, max_positions=2048),
    ),
    # About 3 M parameters besides embedding and head: learns on two CPU cores in minutes.
    "tiny": ModelConfig(
        encoder=EncoderConfig(num_mels=80, width=144, num_heads=4, num_layers=4),
        adaptor=AdaptorConfig(inner_width=256),
        decoder=DecoderConfig(width=192, inner_width=512, num_heads=6, num_kv_heads=2, num_layers=4, rope_theta=1e4, max_positions=2048),
    ),
    # At most 10 M parameters in all with a thousand text ids: an hour on two CPU cores.
    "small": ModelConfig(
        encoder=EncoderConfig(num_mels=80, width=192, num_heads=4, num_layers=4),
        adaptor=AdaptorConfig(inner_width=384),
        decoder=DecoderConfig(width=256, inner_width=704, num_heads=8, num_kv_heads=2, num_layers=4, rope_theta=1e4, max_positions=4096),
    ),
    "0.5b": _on_qwen(896, 4864, 14, 2, 24),
    "1.5b": _on_qwen(1536, 8960, 12, 2, 28),
    "3b": _on_qwen(2048, 11_008, 16, 2, 36),
    # The published Step-Audio-2-mini, on Qwen2.5-7B.
    "mini": _on_qwen(3584, 18_944, 28, 4, 28),
}  # fmt: skip


def model_config(size: str) -> ModelConfig:
    """The configuration of that name. Raises RequestError with the names."""
    if size not in SIZES:
        raise RequestError(f"model size {size!r} is unknown; sizes are {', '.join(SIZES)}")
    return SIZES[size]
