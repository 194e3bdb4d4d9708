"""One example for people to look at: what stands where, of which kind it is, and what its loss weighs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from manifests.console import aligned
from manifests.contracts import MODEL_RATE_HZ
from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from tokenization.spelling import spelled
from tokenization.stretches import TokenKind
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.data import DocumentReader
from training.documents import read_split
from training.examples import Example, ExampleMaker
from training.inputs import check_belongs
from training.layouts import Layouts
from training.prompts import Prompts
from training.recipe import LossWeights, PretrainStage, Task, TrainingRecipe

UNLIMITED = 1 << 62  # tokens
ONE_DOCUMENT = 1  # bytes that the reader may keep: it never keeps fewer documents than one


@dataclass(frozen=True)
class ShownStretch:
    """Successive positions of one kind and weight."""

    position: int  # of the first
    num_tokens: int
    kind: str
    weight: float
    is_heard: bool
    text: str  # as JSON writes it; tokens that are no text by their names


@dataclass(frozen=True)
class ShownExample:
    """An example with what it was made from."""

    task: str
    index: int
    num_examples: int  # of the task in the split
    document: str
    shard: str
    turns: list[int]
    audio_s: list[float]
    stretches: list[ShownStretch]
    example: Example

    def to_json(self) -> dict[str, Any]:
        arrays = {name: getattr(self.example, name).tolist() for name in ("ids", "kinds", "weights", "positions", "is_heard")}
        rest = {name: value for name, value in self.__dict__.items() if name not in ("example", "stretches")}
        return {**rest, "stretches": [asdict(stretch) for stretch in self.stretches], **arrays}

    def lines(self) -> list[str]:
        """For people: one line a stretch."""
        heard = f", hears {' + '.join(f'{seconds:.2f} s' for seconds in self.audio_s)}" if self.audio_s else ""
        head = f"{self.task} {self.index} of {self.num_examples}: document {self.document}, {len(self.example.ids)} tokens{heard}"
        rows = [[str(s.position), s.kind, f"{s.weight:g}", s.text] for s in self.stretches]
        return [head, *aligned([["position", "kind", "weight", "tokens"], *rows])]


def show_example(
    pack_uri: str,
    tokenizer_uri: str,
    task: Task,
    index: int,
    split: str = "train",
    recipe: TrainingRecipe | None = None,
    stage_name: str | None = None,
) -> ShownExample:
    """The ``index``-th example of a task, in the order of the split; a repeat is not stretched.

    With a recipe it has its prompts, with one of its stages also that one's weights and limit of tokens. Raises RequestError for a
    stage, split or index that is not there, MismatchError when pack and tokenizer do not belong together, WorkError for a damaged
    shard.
    """
    pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
    check_belongs(pack, tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts if recipe else Prompts())
    weights, limit = _stage_settings(recipe, stage_name)
    found = read_split(pack, split, layouts, [task], limit)
    places = found.eligible[task]
    if not 0 <= index < len(places):
        raise RequestError(
            f"index {index} is not among the {len(places)} examples of {task.value!r} in split {split!r} "
            f"(refused: {dict(found.refused[task])}); count from 0, or show another task"
        )
    entry = found.entries[places[index]]
    document = DocumentReader(pack, ONE_DOCUMENT).read_for(task, entry)
    example = ExampleMaker(layouts, weights).make(task, entry, document)
    return ShownExample(
        task=task.value,
        index=index,
        num_examples=len(places),
        document=entry.key,
        shard=entry.shard,
        turns=[turn.number for turn in entry.turns],
        audio_s=[len(audio) / MODEL_RATE_HZ for audio in example.audio],
        stretches=stretches_of(example, tokenizer.text, tokenizer.vocabulary),
        example=example,
    )


def stretches_of(example: Example, text: TextTokenizer, vocabulary: Vocabulary) -> list[ShownStretch]:
    """The example from its start to its end."""
    columns = (example.kinds.tolist(), example.weights.tolist(), example.is_heard.tolist())
    found, start = list[ShownStretch](), 0
    for (kind, weight, is_heard), same in groupby(zip(*columns, strict=True)):
        stop = start + len(list(same))
        ids = example.ids[start:stop].tolist()
        found.append(
            ShownStretch(start, len(ids), TokenKind(kind).name.lower(), weight, is_heard, spelled(ids, text, vocabulary))
        )
        start = stop
    return found


def _stage_settings(recipe: TrainingRecipe | None, name: str | None) -> tuple[LossWeights, int]:
    """Weights of loss and the most tokens of an example."""
    if name is None:
        return LossWeights(), UNLIMITED
    stages = {stage.name: stage for stage in recipe.stages} if recipe else {}
    if name not in stages:
        raise RequestError(f"stage {name!r} is not in the recipe; its stages are {', '.join(stages) or 'unknown: give --recipe'}")
    stage = stages[name]
    return stage.loss_weights, stage.sequence_length if isinstance(stage, PretrainStage) else UNLIMITED
