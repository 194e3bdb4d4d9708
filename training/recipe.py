"""What a training recipe may say: model size, data, and the stages with what each trains, on which tasks, how fast."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from manifests.recipes import RecipeModel, load_recipe
from training.config import SIZES

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Task(StrEnum):
    """What an example asks of the model; ``training.examples`` lays each out."""

    CTC = "ctc"  # encoder alone: audio -> text labels
    TEXT = "text"  # plain text
    REPEAT = "repeat"  # stretched text between audio wrappers -> the same text
    ASR = "asr"  # audio -> text
    TTS = "tts"  # text -> interleaved text and audio codes


class Group(StrEnum):
    """Parts of the model that a stage trains or leaves frozen, each with its own learning rate."""

    ENCODER = "encoder"
    CTC_HEAD = "ctc_head"
    ADAPTOR = "adaptor"
    DECODER = "decoder"
    EMBEDDING = "embedding"
    HEAD = "head"


class GroupRate(RecipeModel):
    """Learning rate after warm-up, and where the cosine ends (the same rate when left out)."""

    lr: PositiveFloat
    lr_end: float | None = Field(default=None, ge=0.0)


class LossWeights(RecipeModel):
    """Weight of a target by the kind of its token; 0 leaves the kind out."""

    text: float = Field(default=1.0, ge=0.0)
    audio_code: float = Field(default=1.0, ge=0.0)
    tts_pad: float = Field(default=1.0, ge=0.0)
    audio_pad: float = Field(default=1.0, ge=0.0)
    thinking: float = Field(default=1.0, ge=0.0)
    special: float = Field(default=1.0, ge=0.0)


class Stage(RecipeModel):
    """One stage of the curriculum. Its optimizer starts anew; the weights come from the stage before."""

    name: Name
    tasks: dict[Task, PositiveFloat] = Field(min_length=1)  # shares of examples; they need not sum to 1
    train: dict[Group, GroupRate] = Field(min_length=1)  # groups that are not named are frozen
    steps: PositiveInt
    batch_documents: PositiveInt
    micro_batches: PositiveInt = 1  # parts that a step's documents are worked through in, to bound memory
    warmup_steps: int = Field(default=0, ge=0)
    loss_weights: LossWeights = LossWeights()
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0.0)  # on matrices; never on norms, biases and the embedding
    clip_grad_norm: PositiveFloat = 1.0
    measure_swap: bool = False  # after the stage: ASR loss with matched audio and with audio of another text

    @property
    def is_ctc(self) -> bool:
        return Task.CTC in self.tasks

    @model_validator(mode="after")
    def _fits_together(self) -> Stage:
        if self.is_ctc and len(self.tasks) > 1:
            raise ValueError("task ctc trains the encoder by itself; give it a stage of its own")
        decoder_parts = set(self.train) - {Group.ENCODER, Group.CTC_HEAD}
        if self.is_ctc and decoder_parts:
            raise ValueError(f"a ctc stage reaches encoder and ctc_head only, not {sorted(decoder_parts)}")
        if not self.is_ctc and Group.CTC_HEAD in self.train:
            raise ValueError("ctc_head is trained by the task ctc only")
        if self.batch_documents % self.micro_batches:
            raise ValueError(f"batch_documents {self.batch_documents} must be a multiple of micro_batches {self.micro_batches}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        return self


class DataRecipe(RecipeModel):
    """Splits of the pack and what is refused from them."""

    train_split: str = "train"
    swap_splits: tuple[str, ...] = ("train",)  # measured after a stage with measure_swap; the first is the run's figure
    swap_documents: PositiveInt = 256  # at most so many of a split, from its start
    max_tokens: PositiveInt = 1024  # a longer example is refused and counted, never cut
    cached_audio_bytes: PositiveInt = 256 << 20


class RepeatRecipe(RecipeModel):
    """How repeat examples are drawn. Recombined ones are spans of the pack's own texts in random order."""

    recombined_share: Share = 0.75
    max_spans: PositiveInt = 4
    max_span_tokens: PositiveInt = 3
    max_patches_per_token: PositiveFloat = 4.0  # the text is stretched by up to so many places a token


class TrainingRecipe(RecipeModel):
    """A whole run."""

    model: str
    seed: int = Field(default=0, ge=0)
    threads: PositiveInt = 2  # torch threads: fixed, because sums in another order are other bits
    checkpoint_every: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2  # within a stage; the last one of every stage is kept
    data: DataRecipe = DataRecipe()
    repeat: RepeatRecipe = RepeatRecipe()
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_known_and_apart(self) -> TrainingRecipe:
        if self.model not in SIZES:
            raise ValueError(f"model size {self.model!r} is unknown; sizes are {', '.join(SIZES)}")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stage names {names} are not all different")
        return self


def load_training_recipe(name_or_path: str) -> TrainingRecipe:
    """A shipped recipe by name, or one from a YAML file. Raises RequestError."""
    return load_recipe(TrainingRecipe, "training", name_or_path)
