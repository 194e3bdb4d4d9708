"""Sizes of the model as frozen configurations; the weights' names do not depend on them (reference, section 1.3)."""

from __future__ import annotations

from pydantic import model_validator

from manifests.errors import RequestError
from manifests.recipes import RecipeModel


class EncoderConfig(RecipeModel):
    """A Whisper-type encoder: two convolutions (the second halves the rate), pre-norm blocks, pooling by two."""

    num_mels: int = 128
    num_positions: int = 1500  # at 50 Hz: 30 s
    width: int
    num_heads: int
    num_layers: int


class AdaptorConfig(RecipeModel):
    """The convolution that halves the rate, then two linear layers."""

    kernel_frames: int = 3
    stride_frames: int = 2
    inner_width: int = 2048


class DecoderConfig(RecipeModel):
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


class ModelConfig(RecipeModel):
    """Everything about the model's shape except its vocabulary, which the tokenizer brings."""

    encoder: EncoderConfig
    adaptor: AdaptorConfig
    decoder: DecoderConfig

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        encoder, decoder = self.encoder, self.decoder
        if encoder.width % encoder.num_heads or decoder.width % decoder.num_heads or decoder.num_heads % decoder.num_kv_heads:
            raise ValueError("widths must be multiples of their number of heads, and heads of the key-value heads")
        return self


SIZES: dict[str, ModelConfig] = {
    # About 3 M parameters besides embedding and head: learns on two CPU cores in minutes.
    "tiny": ModelConfig(
        encoder=EncoderConfig(num_mels=80, width=144, num_heads=4, num_layers=4),
        adaptor=AdaptorConfig(inner_width=256),
        decoder=DecoderConfig(width=192, inner_width=512, num_heads=6, num_kv_heads=2, num_layers=4, rope_theta=1e4, max_positions=2048),
    ),
    # For golden curves and tests of the machinery.
    "micro": ModelConfig(
        encoder=EncoderConfig(num_mels=40, width=32, num_heads=2, num_layers=1),
        adaptor=AdaptorConfig(inner_width=32),
        decoder=DecoderConfig(width=32, inner_width=64, num_heads=2, num_kv_heads=1, num_layers=2, rope_theta=1e4, max_positions=2048),
    ),
    # The published Step-Audio-2-mini.
    "mini": ModelConfig(
        encoder=EncoderConfig(width=1280, num_heads=20, num_layers=32),
        adaptor=AdaptorConfig(),
        decoder=DecoderConfig(width=3584, inner_width=18_944, num_heads=28, num_kv_heads=4, num_layers=28),
    ),
}  # fmt: skip


def model_config(size: str) -> ModelConfig:
    """The configuration of that name. Raises RequestError with the names."""
    if size not in SIZES:
        raise RequestError(f"model size {size!r} is unknown; sizes are {', '.join(SIZES)}")
    return SIZES[size]
