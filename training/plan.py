"""What a run would do, before it does it: stages, what each trains at which rate, and the examples that it can draw on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from manifests.console import counted
from manifests.errors import MismatchError, RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.config import model_config
from training.documents import Split, read_split
from training.layouts import Layouts
from training.recipe import CtcStage, PretrainStage, Task, TrainingRecipe


@dataclass(frozen=True)
class Inputs:
    """A recipe with the pack and tokenizer that it runs on, opened and checked against each other."""

    recipe: TrainingRecipe
    pack: Pack
    tokenizer: Tokenizer
    layouts: Layouts
    train: Split


@dataclass(frozen=True)
class StagePlan:
    """One stage in figures."""

    name: str
    steps: int
    trainable_parameters: int
    examples: dict[str, int]  # documents that serve each task of the stage
    refused: dict[str, dict[str, int]]  # task -> reason -> documents
    tails: dict[str, int]  # task -> audio of which the end is too short to be heard, and dropped
    epochs: dict[str, float]  # task -> passes over its documents
    rates: dict[str, list[float]]  # group -> learning rate after warm-up and at the end


@dataclass(frozen=True)
class Plan:
    """A run in figures."""

    model: str
    parameters: int
    stages: tuple[StagePlan, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"model {self.model}: {self.parameters:,} parameters"]
        for stage in self.stages:
            rates = ", ".join(f"{group} {begin:g} → {end:g}" for group, (begin, end) in stage.rates.items())
            lines.append(f"{stage.name}: {stage.steps} steps, {stage.trainable_parameters:,} parameters trained ({rates})")
            for task, count in stage.examples.items():
                refused = ", ".join(f"{reason} {number}" for reason, number in sorted(stage.refused[task].items()))
                behind = f"; refused: {refused}" if refused else ""
                behind += (
                    f"; dropped: {counted(stage.tails[task], 'tail of audio', 'tails of audio')}" if stage.tails[task] else ""
                )
                lines.append(f"  {task}: {count} documents, {stage.epochs[task]:.1f} passes{behind}")
        return lines


def open_inputs(recipe: TrainingRecipe, pack_uri: str, tokenizer_uri: str) -> Inputs:
    """Raises RequestError where one is missing, MismatchError when the pack was made with another tokenizer or codec."""
    pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
    check_belongs(pack, tokenizer)
    longest = model_config(recipe.model).decoder.max_positions
    if recipe.longest_sequence > longest:
        raise RequestError(f"sequence_length {recipe.longest_sequence} is past the {longest} positions of model {recipe.model!r}")
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)
    # ASR whatever the stages do: the swap is measured on it. In the order of Task, so that parts have the same places always.
    tasks = [task for task in Task if task is Task.ASR or any(task in stage.tasks for stage in recipe.stages)]
    train = read_split(pack, recipe.data.train_split, layouts, tasks, recipe.longest_sequence)
    for stage in recipe.stages:
        for task in stage.tasks:
            if not train.eligible[task]:
                raise RequestError(
                    f"stage {stage.name!r}: none of the {train.num_documents} documents of split {train.name!r} serves task "
                    f"{task.value!r} (refused: {dict(train.refused[task])}); pack documents for it or take the task out of the recipe"
                )
    return Inputs(recipe, pack, tokenizer, layouts, train)


def check_belongs(pack: Pack, tokenizer: Tokenizer) -> None:
    """Raises MismatchError when the pack was made with another tokenizer or codec."""
    own = {  # its parts first: the id differs with each of them, and says of none
        "codec_fingerprint": tokenizer.codec_fingerprint,
        "vocabulary_hash": tokenizer.vocabulary.layout_hash,
        "tokenizer_id": tokenizer.tokenizer_id,
    }
    for name, value in own.items():
        # A pack without a tokenizer (text, or audio without codes) says null: it fits any.
        if pack.head.get(name) not in (None, value):
            raise MismatchError(
                f"pack {pack.store.uri!r} has {name} {pack.head[name]}, tokenizer {tokenizer.uri!r} {value}; "
                "give the tokenizer it was packed with"
            )


def make_plan(inputs: Inputs) -> Plan:
    """The plan of checked inputs. Builds the model without memory, to count it. Raises as ``swap_splits``."""
    import torch

    from training.model import StepAudio2

    swap_splits(inputs)
    recipe, vocabulary = inputs.recipe, inputs.tokenizer.vocabulary
    with torch.device("meta"):
        model = StepAudio2(model_config(recipe.model), vocabulary.num_rows, vocabulary.text_size)
    sizes = {group: sum(p.numel() for _, p in parameters) for group, parameters in model.groups().items()}
    stages = []
    for stage in recipe.stages:
        total = sum(given.share for given in stage.tasks.values())
        drawn = stage.num_steps * (stage.batch_documents if isinstance(stage, CtcStage) else stage.sequences_per_step)
        examples = {task.value: len(inputs.train.eligible[task]) for task in stage.tasks}
        stages.append(
            StagePlan(
                name=stage.name,
                steps=stage.num_steps,
                trainable_parameters=sum(sizes[group] for group in stage.train),
                examples=examples,
                refused={task.value: dict(inputs.train.refused[task]) for task in stage.tasks},
                tails={task.value: inputs.train.tails[task] for task in stage.tasks},
                epochs={task.value: drawn * given.share / total / examples[task] for task, given in stage.tasks.items()},
                rates={g.value: [r.lr, r.lr if r.lr_end is None else r.lr_end] for g, r in stage.train.items()},
            )
        )
    return Plan(recipe.model, sum(sizes.values()), tuple(stages))


def swap_splits(inputs: Inputs) -> list[Split]:
    """The splits that the swap is measured on. Raises RequestError when it cannot be measured on one of them."""
    from training.evaluation import swap_pairs

    recipe = inputs.recipe
    if not any(isinstance(stage, PretrainStage) and stage.measure_swap for stage in recipe.stages):
        return []
    splits = []
    for name in recipe.data.swap_splits:
        is_train = name == inputs.train.name
        found = inputs.train if is_train else read_split(inputs.pack, name, inputs.layouts, [Task.ASR], recipe.longest_sequence)
        swap_pairs(found, recipe.data.swap_documents)
        splits.append(found)
    return splits
