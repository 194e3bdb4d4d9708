"""The recipe of ``tokenizer train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manifests.recipes import RecipeModel
from tokenization.codec import FsqConfig
from tokenization.codec_training import CodecTraining
from tokenization.interleave import Ratio
from tokenization.mimi import MimiConfig
from tokenization.s3 import S3Config
from tokenization.text import MIN_VOCAB_SIZE


class TrainedText(RecipeModel):
    """A byte-level BPE trained on the corpus' transcripts; the vocabulary is laid out behind its ids."""

    kind: Literal["bpe"]
    vocab_size: int = Field(default=4000, ge=MIN_VOCAB_SIZE, description="at most; few texts give fewer")
    # ``source``: transcripts that came with the inputs; any other name: the layer's column ``text``.
    text_from: list[str] = ["source", "asr"]
    extra_texts: list[str] = Field(default=[], description="local text files, one text a line")


class PublishedText(RecipeModel):
    """Qwen2.5's ``tokenizer.json`` from a local path, with the published model's vocabulary."""

    kind: Literal["published"]
    path: str


class FsqPart(RecipeModel):
    """The FSQ codec, trained on the corpus."""

    kind: Literal["fsq"]
    network: FsqConfig = FsqConfig()
    training: CodecTraining = CodecTraining()


class TokenizerRecipe(RecipeModel):
    """Text tokenizer, vocabulary, interleave ratio and codec."""

    name: str
    seed: int = 0
    text: Annotated[TrainedText | PublishedText, Field(discriminator="kind")]
    codec: Annotated[FsqPart | S3Config | MimiConfig, Field(discriminator="kind")]
    interleave_ratio: str = Field(default="1:4", pattern=r"^[1-9]\d*:[1-9]\d*$", description="text ids : codes in one group")

    @property
    def ratio(self) -> Ratio:
        return Ratio.parse(self.interleave_ratio)
