"""What a run rests on, opened and checked against each other before anything is computed or written."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from manifests.errors import MismatchError, RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.config import model_config
from training.data import served_shares
from training.documents import Split, read_split, serve
from training.evaluation import swap_pairs
from training.layouts import Layouts
from training.recipe import CtcStage, Group, PretrainStage, Stage, Task, TrainingRecipe
from training.start import Start, check_tokenizer, open_start
from training.tags import check_tags


@dataclass(frozen=True)
class Inputs:
    """A recipe with the pack, the tokenizer and the weights that it starts from."""

    recipe: TrainingRecipe
    pack: Pack
    tokenizer: Tokenizer
    layouts: Layouts
    train: Split
    start: Start

    def split(self, stage: Stage) -> Split:
        """The training split by what fits the stage's sequences."""
        if not isinstance(stage, PretrainStage) or stage.sequence_length == self.recipe.longest_sequence:
            return self.train
        documents = self.train.entries[: self.train.num_documents]
        return serve(self.train.name, documents, self.layouts, stage.tasks, stage.sequence_length)


def open_inputs(recipe: TrainingRecipe, pack_uri: str, tokenizer_uri: str) -> Inputs:
    """Raises RequestError where one is missing, where documents do not serve a task or the curriculum cannot work;
    MismatchError when the pack was made with another tokenizer or codec, or weights are of another model."""
    pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
    check_belongs(pack, tokenizer)
    check_splits(recipe, pack)
    check_tokenizer(recipe.start, tokenizer.text)
    start = open_start(recipe.start, recipe.model, tokenizer.vocabulary)
    check_curriculum(recipe, start.trained)
    for stage in recipe.stages:
        if isinstance(stage, CtcStage):
            check_tags(stage.tags, stage.name, pack)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)
    # ASR whatever the stages do: the swap is measured on it. In the order of Task, so that parts have the same places always.
    tasks = [task for task in Task if task is Task.ASR or any(task in stage.tasks for stage in recipe.stages)]
    train = read_split(pack, recipe.data.train_split, layouts, tasks, recipe.longest_sequence)
    inputs = Inputs(recipe, pack, tokenizer, layouts, train, start)
    for stage in recipe.stages:
        mix_of(stage, inputs.split(stage))
    return inputs


def mix_of(stage: Stage, split: Split) -> dict[Task, float]:
    """Shares of the stage's tasks that documents of the split serve. Raises RequestError as ``served_shares``."""
    if isinstance(stage, PretrainStage):
        return served_shares(split, stage)
    if not split.eligible[Task.CTC]:
        raise RequestError(
            f"stage {stage.name!r}: none of the {split.num_documents} documents of split {split.name!r} serves task "
            f"'ctc' (refused: {dict(split.refused[Task.CTC])}); pack documents for it or take the stage out of the recipe"
        )
    return {Task.CTC: 1.0}


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


def check_splits(recipe: TrainingRecipe, pack: Pack) -> None:
    """Raises RequestError where the recipe trains or measures on a split that the pack does not have."""
    stages = [stage for stage in recipe.stages if isinstance(stage, PretrainStage)]
    named = {
        "train_split": (recipe.data.train_split,),
        "swap_splits": recipe.data.swap_splits if any(stage.measure_swap for stage in stages) else (),
        "held_out_splits": recipe.data.held_out_splits if any(stage.measures for stage in stages) else (),
    }
    for key, names in named.items():
        if absent := [name for name in names if name not in pack.splits]:
            raise RequestError(
                f"pack {pack.store.uri!r} has no split {absent[0]!r}, which the recipe's data.{key} names; it has {pack.splits}: "
                f"name one of these in data.{key}, or pack with a split of that name"
            )


def check_curriculum(recipe: TrainingRecipe, trained: Collection[Group]) -> None:
    """Whether stages stand on what they need, when ``trained`` parts of the model are there at the start.

    Raises RequestError for a sequence that is longer than the model sees, and for a stage that trains the adaptor under a frozen
    decoder while this or the encoder is still random: there is nothing to align (measured: it stays at chance). That the stage
    trains embedding or head as well mends nothing.
    """
    longest = model_config(recipe.model).decoder.max_positions
    if recipe.longest_sequence > longest:
        raise RequestError(f"sequence_length {recipe.longest_sequence} is past the {longest} positions of model {recipe.model!r}")
    known = set(trained)
    for stage in recipe.stages:
        if Group.ADAPTOR in stage.train and Group.DECODER not in stage.train:
            for part, named in ((Group.ENCODER, "an encoder"), (Group.DECODER, "a decoder")):
                if part not in known:
                    raise RequestError(
                        f"stage {stage.name!r} trains the adaptor and not the decoder, over {named} that no stage before it trains and "
                        f"start does not bring trained; there is nothing to align with random weights: put a stage that trains it before, or set start.{part.value}"
                    )
        known |= set(stage.train)


def growing_stage(recipe: TrainingRecipe, loaded: Collection[Group]) -> int | None:
    """Number of the stage at whose start the vocabulary grows: the first with all of it behind one with text alone.

    None where no stage does, and where a text model was loaded: its rows grew then.
    """
    has_text = False
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage, CtcStage):
            continue
        if stage.vocabulary.value == "full":
            return number if has_text and Group.DECODER not in loaded else None
        has_text = True
    return None


def swap_splits(inputs: Inputs) -> list[Split]:
    """The splits that the swap is measured on. Raises RequestError when it cannot be measured on one of them."""
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
