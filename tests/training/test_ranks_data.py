"""What each rank reads: together what one process reads alone, and nothing kept of the others' share."""

from __future__ import annotations

from typing import Any

import pytest

from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.data import Batching, DocumentReader, PackedData, StageData, size_of_part, stage_data
from training.documents import Split, read_split
from training.entries import Entry
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.recipe import LossWeights, Task, TrainingRecipe

WORLDS = (2, 4)


class CountingReader(DocumentReader):
    """Remembers which documents were asked for."""

    def __init__(self, pack: Pack) -> None:
        super().__init__(pack, 1 << 24)
        self.keys: list[str] = []

    def read(self, entry: Entry, *, with_audio: bool = True) -> Any:
        self.keys.append(entry.key)
        return super().read(entry, with_audio=with_audio)


class Bench:
    def __init__(self, made: Any, recipe: TrainingRecipe) -> None:
        tokenizer = Tokenizer.open(made.tokenizer)
        self.pack, self.recipe, self.batching = Pack.open(made.pack), recipe, Batching(40, tokenizer.vocabulary.pad)
        self.layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)

    def data(self, stage: int, rank: int = 0, world: int = 1) -> tuple[StageData, CountingReader]:
        split: Split = read_split(self.pack, "train", self.layouts, list(Task), self.recipe.longest_sequence)
        reader, maker = CountingReader(self.pack), ExampleMaker(self.layouts, LossWeights())
        return stage_data(split, reader, maker, self.recipe, self.recipe.stages[stage], self.batching, rank, world), reader


@pytest.fixture
def bench(chord_pack: Any, demo_recipe: TrainingRecipe) -> Bench:
    return Bench(chord_pack, demo_recipe)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_of_a_ctc_stage_read_their_own_documents_and_together_the_step(bench: Bench, world: int) -> None:
    alone, _ = bench.data(0)
    ranks = [bench.data(0, rank, world) for rank in range(world)]
    for _ in range(5):
        expected = sorted(key for batch in alone.next_step() for key in batch.document_ids)
        parts = [[key for batch in data.next_step() for key in batch.document_ids] for data, _ in ranks]
        assert sorted(key for part in parts for key in part) == expected
        assert {len(part) for part in parts} == {4 // world}
        assert all(data.state_dict() == alone.state_dict() for data, _ in ranks)
    read = [reader.keys for _, reader in ranks]
    assert {len(keys) for keys in read} == {5 * 4 // world}


def test_a_ctc_stage_goes_on_with_other_ranks_where_it_stopped(bench: Bench) -> None:
    alone, _ = bench.data(0)
    steps = [alone.next_step() for _ in range(4)]
    two = [bench.data(0, rank, 2)[0] for rank in range(2)]
    for rank in two:
        rank.next_step()
    four = [bench.data(0, rank, 4)[0] for rank in range(4)]
    for rank in four:
        rank.load_state_dict(two[0].state_dict())
    for expected in steps[1:]:
        found = [key for rank in four for batch in rank.next_step() for key in batch.document_ids]
        assert sorted(found) == sorted(key for batch in expected for key in batch.document_ids)


@pytest.mark.parametrize("world", WORLDS)
def test_repeats_that_other_ranks_take_are_not_kept(bench: Bench, world: int) -> None:
    """A rank works out how long all are; what it keeps is what its own packer holds back."""
    kept: dict[int, list[int]] = {1: [], world: []}
    for size in kept:
        data, _ = bench.data(1, size - 1, size)
        assert isinstance(data, PackedData)
        for _ in range(30):
            data.next_step()
            kept[size].append(len(data.documents[Task.REPEAT]._made))
    assert kept[world] == kept[1]
    assert max(kept[world]) < 30


@pytest.mark.parametrize(
    ("stage", "world", "said"),
    [
        (0, 3, "batch_documents 4 must be a multiple of 3 processes times micro_batches 1"),
        (3, 4, "sequences_per_step 4 must be a multiple of 4 processes times micro_batches 2"),
    ],
)
def test_steps_that_do_not_come_out_even_are_refused(demo_recipe: TrainingRecipe, stage: int, world: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        size_of_part(demo_recipe.stages[stage], world)


def test_parts_come_out_even(demo_recipe: TrainingRecipe) -> None:
    assert [size_of_part(stage, 2) for stage in demo_recipe.stages] == [2, 2, 2, 2]
