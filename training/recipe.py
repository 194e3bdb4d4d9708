"""What a training recipe may say: model size, data, and the stages with what each trains, on which tasks, how fast."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from manifests.recipes import RecipeModel, load_recipe
from training.config import SIZES
from training.encoder_recipe import AugmentRecipe, Share, TagHead
from training.evaluation_recipe import EvaluationRecipe
from training.prompts import Prompts
from training.spikes import SpikeRecipe
from training.start_recipe import StartRecipe

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Task(StrEnum):
    """What an example asks of the model; ``training.examples`` lays each out."""

    CTC = "ctc"  # encoder alone: audio -> text labels
    TEXT = "text"  # plain text
    REPEAT = "repeat"  # stretched text between audio wrappers -> the same text
    ASR = "asr"  # audio -> text
    TTS = "tts"  # text -> interleaved text and audio codes
    S2TT = "s2tt"  # audio -> text in another language
    T2ST = "t2st"  # text -> speech in another language
    S2ST = "s2st"  # audio -> speech in another language
    CONTINUATION = "continuation"  # utterances as interleaved text and codes -> the next ones
    CONTINUATION_TEXT = "continuation_text"  # audio of an utterance -> text of those that follow
    CONVERSATION = "conversation"  # audio of one speaker -> speech of the other, turn by turn
    CAPTIONING = "captioning"  # audio -> text about how it sounds


# Tasks whose targets hold audio ids.
SPEAKING = frozenset({Task.TTS, Task.T2ST, Task.S2ST, Task.CONTINUATION, Task.CONVERSATION})


class Group(StrEnum):
    """Parts of the model that a stage trains or leaves frozen, each with its own learning rate."""

    ENCODER = "encoder"
    CTC_HEAD = "ctc_head"
    TAG_HEADS = "tag_heads"
    ADAPTOR = "adaptor"
    DECODER = "decoder"
    EMBEDDING = "embedding"
    HEAD = "head"


class Schedule(StrEnum):
    """How a rate goes from ``lr`` to ``lr_end`` behind the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


class Logits(StrEnum):
    """Which ids a stage's head can emit."""

    TEXT = "text"  # audio ids are masked from the logits: before the vocabulary's stage they mean nothing
    FULL = "full"


class Precision(StrEnum):
    """The type that matrices are multiplied in. Weights, gradients, moments, norms and losses are float32 in both."""

    FP32 = "fp32"
    BF16 = "bf16"

    @property
    def activation_bytes(self) -> int:
        """Of a number between two products."""
        return 4 if self is Precision.FP32 else 2


class Measure(StrEnum):
    """What is measured on held-out splits after a stage; ``training.held_out``."""

    ASR = "asr"  # word and character errors of what the model writes down of audio, decoding freely
    TEXT = "text"  # loss of plain text: does the stage make the model forget how to write?
    TTS = "tts"  # word and character errors of what is read off the codes that it speaks freely


class GroupRate(RecipeModel):
    """Learning rate after warm-up, and where the stage's schedule ends (the same rate when left out)."""

    lr: PositiveFloat
    lr_end: float | None = Field(default=None, ge=0.0)


class TaskShare(RecipeModel):
    """How much of a stage's tokens is a task's, and what happens when no document serves it."""

    share: PositiveFloat  # shares of a stage need not sum to 1
    absent: Literal["refuse", "skip"] = "refuse"


def _in_order(kind: type[StrEnum]) -> AfterValidator:
    """Keys in the order of their enumeration: sums go over them, and the order of a recipe's lines is not to move a bit."""
    return AfterValidator(lambda given: {key: given[key] for key in kind if key in given})


def _share_alone(value: Any) -> Any:
    """A share without anything else may be written as a number."""
    return {"share": value} if isinstance(value, int | float) else value


class LossWeights(RecipeModel):
    """Weight of a target by the kind of its token; 0 leaves the kind out.

    Paddings and specials cannot be left out: generation has to emit them, or an answer never ends.
    """

    text: float = Field(default=1.0, ge=0.0)
    audio_code: float = Field(default=1.0, ge=0.0)
    tts_pad: PositiveFloat = 1.0
    audio_pad: PositiveFloat = 1.0
    thinking: float = Field(default=1.0, ge=0.0)
    special: PositiveFloat = 1.0


class StageBase(RecipeModel):
    """What every kind of stage says. Its optimizer starts anew; the weights come from the stage before."""

    name: Name
    train: Annotated[dict[Group, GroupRate], Field(min_length=1), _in_order(Group)]  # groups that are not named are frozen
    frozen: tuple[str, ...] = ()  # patterns of weights' names that stay as they are although their group is trained
    schedule: Schedule = Schedule.COSINE
    warmup_steps: int = Field(default=0, ge=0)
    micro_batches: PositiveInt = 1  # parts that a step is worked through in, to bound memory
    loss_weights: LossWeights = LossWeights()
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0.0)  # on matrices; never on norms, biases and the embedding
    clip_grad_norm: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _rates_end_somewhere(self) -> StageBase:
        ending = sorted(group for group, rate in self.train.items() if rate.lr_end is not None)
        if self.schedule is Schedule.CONSTANT and ending:
            raise ValueError(f"schedule constant has no lr_end; take it out of {ending}, or choose cosine or linear")
        return self


class CtcStage(StageBase):
    """Pretrains the encoder by CTC, and by tags of what is heard, on documents that are batched by the length of their audio."""

    kind: Literal["ctc"]
    steps: PositiveInt
    batch_documents: PositiveInt  # documents of a step
    augment: AugmentRecipe = AugmentRecipe()
    tags: dict[Name, TagHead] = {}

    @property
    def num_steps(self) -> int:
        return self.steps

    @property
    def tasks(self) -> dict[Task, TaskShare]:
        return {Task.CTC: TaskShare(share=1.0)}

    @model_validator(mode="after")
    def _fits_together(self) -> CtcStage:
        if others := sorted(set(self.train) - {Group.ENCODER, Group.CTC_HEAD, Group.TAG_HEADS}):
            raise ValueError(f"a ctc stage reaches encoder and ctc_head only, and tag_heads, not {others}")
        if bool(self.tags) != (Group.TAG_HEADS in self.train):
            raise ValueError(
                "tags are told by tag_heads, and these tell nothing else; name both, tags and train.tag_heads, or none"
            )
        if not self.loss_weights.text:
            raise ValueError("a ctc stage has targets of text alone; loss_weights.text 0 leaves none: take it out")
        if self.batch_documents % self.micro_batches:
            raise ValueError(f"batch_documents {self.batch_documents} must be a multiple of micro_batches {self.micro_batches}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.steps}")
        return self


class PretrainStage(StageBase):
    """Next-token prediction over sequences packed with whole documents; the encoder is frozen."""

    kind: Literal["pretrain"]
    # A bare number is the share. Shares are of tokens: every position counts but a sequence's padding.
    tasks: Annotated[dict[Task, Annotated[TaskShare, BeforeValidator(_share_alone)]], Field(min_length=1), _in_order(Task)]
    sequence_length: PositiveInt  # a longer document is refused and counted, never cut
    sequences_per_step: PositiveInt
    steps: PositiveInt | None = None
    tokens: PositiveInt | None = None  # instead of steps; a step counts as full sequences
    vocabulary: Logits = Logits.FULL
    measure_swap: bool = False  # after the stage: ASR loss with matched audio and with audio of another text
    measures: tuple[Measure, ...] = ()  # on data.held_out_splits, behind the stage's last step
    evaluate_every: PositiveInt | None = None  # steps: the measures are taken behind these too

    @property
    def tokens_per_step(self) -> int:
        return self.sequence_length * self.sequences_per_step

    @property
    def num_steps(self) -> int:
        """``steps``, or as many as hold ``tokens``."""
        return self.steps if self.steps is not None else -(-(self.tokens or 0) // self.tokens_per_step)

    @model_validator(mode="after")
    def _fits_together(self) -> PretrainStage:
        if Task.CTC in self.tasks:
            raise ValueError("task ctc trains the encoder by itself; give it a stage of kind ctc")
        if Group.ENCODER in self.train:
            raise ValueError(
                "the encoder is trained by a stage of kind ctc only, and frozen in all that follow; take it out of train"
            )
        if heads := sorted({Group.CTC_HEAD, Group.TAG_HEADS} & set(self.train)):
            raise ValueError(f"{heads[0]} is trained by a stage of kind ctc only; take it out of train")
        if (self.steps is None) == (self.tokens is None):
            raise ValueError("a stage is as long as its steps or as its tokens; give one of them")
        if self.sequences_per_step % self.micro_batches:
            raise ValueError(
                f"sequences_per_step {self.sequences_per_step} must be a multiple of micro_batches {self.micro_batches}"
            )
        if self.warmup_steps >= self.num_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below steps {self.num_steps}")
        if self.vocabulary is Logits.TEXT and (speaking := sorted(SPEAKING & set(self.tasks))):
            raise ValueError(f"vocabulary text masks audio ids, which tasks {speaking} emit; say vocabulary: full")
        if self.vocabulary is Logits.TEXT and Measure.TTS in self.measures:
            raise ValueError("vocabulary text masks audio ids, which measure tts makes the model speak; say vocabulary: full")
        if self.evaluate_every is not None and not self.measures:
            raise ValueError(f"evaluate_every {self.evaluate_every} has nothing to measure; name measures, or take it out")
        return self


Stage = CtcStage | PretrainStage


class DataRecipe(RecipeModel):
    """Splits of the pack and what is refused from them."""

    train_split: str = "train"
    # Measured after a stage with measure_swap; the first is the run's figure.
    swap_splits: tuple[str, ...] = Field(default=("train",), min_length=1)
    swap_documents: PositiveInt = 256  # at most so many of a split, from its start
    held_out_splits: tuple[str, ...] = Field(default=("test",), min_length=1)  # what the stages' measures are taken on
    held_out_documents: PositiveInt = 256  # at most so many of a split and measure, from its start
    cached_audio_bytes: PositiveInt = 256 << 20
    # Of the frozen encoder's frames that are kept in memory. 0: pieces are encoded in batches and none is kept. From 1 on they are
    # encoded one by one, and how much is kept moves no bit.
    cached_feature_bytes: int = Field(default=0, ge=0)


class RepeatRecipe(RecipeModel):
    """How repeat examples are drawn. Recombined ones are spans of the pack's own texts in random order."""

    recombined_share: Share = 0.75
    max_spans: PositiveInt = 4
    max_span_tokens: PositiveInt = 3
    max_patches_per_token: float = Field(default=4.0, ge=1.0)  # the text is stretched by up to so many places a token


class TrainingRecipe(RecipeModel):
    """A whole run."""

    model: str
    start: StartRecipe = StartRecipe()
    seed: int = Field(default=0, ge=0)
    threads: PositiveInt = 2  # torch threads: fixed, because sums in another order are other bits
    precision: Precision = Precision.FP32
    recompute: bool = False  # the decoder's blocks keep their inputs only and run again in the backward pass
    compile: bool = False  # the decoder's blocks through torch.compile; other sums, so a run goes on only as it began
    checkpoint_every: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2  # within a stage; the last one of every stage is kept
    data: DataRecipe = DataRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    repeat: RepeatRecipe = RepeatRecipe()
    prompts: Prompts = Prompts()
    spikes: SpikeRecipe = SpikeRecipe()
    stages: tuple[Annotated[Stage, Field(discriminator="kind")], ...] = Field(min_length=1)

    @property
    def longest_sequence(self) -> int:
        """The largest ``sequence_length`` of all stages; 0 where none has one."""
        return max((stage.sequence_length for stage in self.stages if isinstance(stage, PretrainStage)), default=0)

    @property
    def num_tag_labels(self) -> dict[str, int]:
        """Classes of every tag that some stage tells."""
        return {
            name: len(head.labels) for stage in self.stages if isinstance(stage, CtcStage) for name, head in stage.tags.items()
        }

    @model_validator(mode="after")
    def _a_tag_has_one_head(self) -> TrainingRecipe:
        known: dict[str, tuple[str, ...]] = {}
        for stage in self.stages:
            for name, head in stage.tags.items() if isinstance(stage, CtcStage) else ():
                if known.setdefault(name, head.labels) != head.labels:
                    raise ValueError(
                        f"tag {name!r} has labels {list(known[name])} and {list(head.labels)}; it has one head: give it one list"
                    )
        return self

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
