from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from manifests import packs
from manifests.errors import MismatchError, RequestError
from manifests.packs import Document, Pack
from tokenization.artifact import Tokenizer
from training.batches import Batch, CtcBatch
from training.data import FACTS_BYTES, Batching, DocumentReader, PackedData, StageData, served_shares, stage_data, task_documents
from training.documents import Split, read_split
from training.entries import Entry
from training.examples import NO_DOCUMENT, ExampleMaker
from training.layouts import Layouts
from training.prompts import Prompts
from training.recipe import LossWeights, PretrainStage, Task, TrainingRecipe

MakeData = Callable[..., StageData]
BATCHING = Batching(num_mels=40, pad_id=1)


class Opened:
    """The chords' pack with all that data is made from."""

    def __init__(self, made: Any) -> None:
        self.pack, tokenizer = Pack.open(made.pack), Tokenizer.open(made.tokenizer)
        self.layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())
        self.maker = ExampleMaker(self.layouts, LossWeights())

    @property
    def reader(self) -> DocumentReader:
        return DocumentReader(self.pack, 1 << 20)

    def split(self, max_tokens: int) -> Split:
        return read_split(self.pack, "train", self.layouts, list(Task), max_tokens)


@pytest.fixture
def opened(chord_pack: Any) -> Opened:
    return Opened(chord_pack)


@pytest.fixture
def make_data(opened: Opened) -> MakeData:
    def make(recipe: TrainingRecipe, stage: int) -> StageData:
        split = opened.split(recipe.longest_sequence)
        return stage_data(split, opened.reader, opened.maker, recipe, recipe.stages[stage], BATCHING)

    return make


def content(data: StageData) -> list[tuple[tuple[str, ...], bytes]]:
    """Document ids and token ids of a step's micro-batches."""
    return [(b.document_ids, (b.ids_BT if isinstance(b, Batch) else b.labels_AL).numpy().tobytes()) for b in data.next_step()]


@pytest.mark.parametrize("stage", range(4))
def test_the_order_goes_on_from_any_step_as_if_it_had_never_stopped(
    make_data: MakeData, demo_recipe: TrainingRecipe, stage: int
) -> None:
    whole = make_data(demo_recipe, stage)
    steps = [content(whole) for _ in range(7)]
    for stop in np.random.default_rng(stage).integers(0, 7, size=3).tolist():
        first = make_data(demo_recipe, stage)
        for _ in range(stop):
            first.next_step()
        second = make_data(demo_recipe, stage)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [content(second) for _ in range(7 - stop)] == steps[stop:]


@pytest.mark.parametrize("stage", [0, 2])  # ctc, asr
def test_every_epoch_reads_every_document_once_in_another_order(
    make_data: MakeData, demo_recipe: TrainingRecipe, stage: int
) -> None:
    data = make_data(demo_recipe, stage)
    keys: list[str] = []
    while len(keys) < 36:
        keys += [key for batch in data.next_step() for key in batch.document_ids]
    epochs = [keys[start : start + 12] for start in (0, 12, 24)]
    assert all(Counter(epoch) == Counter(epochs[0]) and len(set(epoch)) == 12 for epoch in epochs)
    if stage:  # batches of audio have their documents by length
        assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("stage", [1, 3])  # text and repeat, tts and asr
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_read_what_one_reads_alone(
    opened: Opened, demo_recipe: TrainingRecipe, stage: int, world: int
) -> None:
    chosen = demo_recipe.stages[stage].model_copy(update={"micro_batches": 1})
    split = opened.split(demo_recipe.longest_sequence)

    def data(rank: int, world: int) -> PackedData:
        documents = task_documents(split, opened.reader, opened.maker, demo_recipe, chosen)
        return PackedData(documents, demo_recipe, chosen, BATCHING, rank, world)

    alone, ranks = data(0, 1), [data(rank, world) for rank in range(world)]
    for _ in range(3):
        (whole,) = alone.next_step()
        parts = [batch for rank in ranks for batch in rank.next_step()]
        assert torch.equal(torch.cat([part.ids_BT for part in parts]), whole.ids_BT)
        assert tuple(key for part in parts for key in part.document_ids) == whole.document_ids
    assert all(rank.state_dict() == alone.state_dict() for rank in ranks)


def test_a_step_must_have_a_sequence_for_every_process_and_micro_batch(opened: Opened, demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[3]
    documents = task_documents(opened.split(1024), opened.reader, opened.maker, demo_recipe, stage)
    with pytest.raises(RequestError, match="multiple of 4 processes times micro_batches 2"):
        PackedData(documents, demo_recipe, stage, BATCHING, 0, 4)


def test_another_seed_or_stage_is_another_order(make_data: MakeData, demo_recipe: TrainingRecipe) -> None:
    other = demo_recipe.model_copy(update={"seed": 99})
    assert content(make_data(demo_recipe, 2)) != content(make_data(other, 2))
    with pytest.raises(MismatchError, match="cannot go on"):
        make_data(other, 2).load_state_dict(make_data(demo_recipe, 2).state_dict())
    with pytest.raises(MismatchError, match="cannot go on"):
        make_data(demo_recipe, 1).load_state_dict(make_data(demo_recipe, 2).state_dict())


def tokens_by_task(batches: Sequence[Batch | CtcBatch], of_text: set[int]) -> Counter[str]:
    """Tokens of documents that begin with one of these ids, and of the others."""
    found: Counter[str] = Counter()
    for batch in batches:
        assert isinstance(batch, Batch)
        for row, lengths in zip(batch.ids_BT.tolist(), batch.spans.rows, strict=True):
            start = 0
            for length in lengths:
                found["text" if row[start] in of_text else "other"] += length
                start += length
    return found


def test_tasks_get_their_shares_of_tokens(make_data: MakeData, opened: Opened, demo_recipe: TrainingRecipe) -> None:
    """The chords' stage of text and repeat, 1 to 2: repeats begin with the prompt of ASR, texts with a word."""
    split, data, given = opened.split(1024), make_data(demo_recipe, 1), Counter[str]()
    words = {split.entries[place].turns[0].text_ids[0] for place in split.eligible[Task.TEXT]}
    for _ in range(6):
        given += tokens_by_task(data.next_step(), words)
        assert abs(given["text"] - given.total() / 3) <= 1024


def test_a_task_that_no_document_serves_is_refused_or_skipped(opened: Opened, demo_recipe: TrainingRecipe) -> None:
    def stage(absent: str, **more: Any) -> PretrainStage:
        tasks = {"s2tt": {"share": 2.0, "absent": absent}, **more}
        return PretrainStage.model_validate({**demo_recipe.stages[2].model_dump(), "tasks": tasks})

    split = opened.split(1024)
    assert served_shares(split, stage("skip", asr=1.0)) == {Task.ASR: 1.0}
    with pytest.raises(RequestError, match=r"'s2tt' in sequences of 256 \(refused.*or say absent: skip"):
        served_shares(split, stage("refuse", asr=1.0))
    with pytest.raises(RequestError, match="serves any of its tasks"):
        served_shares(split, stage("skip"))


def test_a_small_cache_changes_nothing_that_is_read(opened: Opened) -> None:
    split = opened.split(512)
    small, large = DocumentReader(opened.pack, 1), DocumentReader(opened.pack, 1 << 24)
    documents = split.entries[: split.num_documents]
    for entry in [*documents, *documents]:
        for one, other in zip(small.read(entry).turns, large.read(entry).turns, strict=True):
            assert np.array_equal(one.audio, other.audio)  # type: ignore[arg-type]
    assert len(small._cache) == 1
    assert len(large._cache) == 12


def test_audio_is_decoded_for_those_who_hear_it(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    whole = packs.decode_flac
    monkeypatch.setattr(packs, "decode_flac", lambda data: (decoded.append(len(data)), whole(data))[1])
    entry = opened.split(512).entries[0]
    reader, deaf = DocumentReader(opened.pack, 1 << 24), DocumentReader(opened.pack, 1 << 24)
    spoken = reader.read_for(Task.TTS, entry)
    assert spoken.turns[0].audio is None
    assert decoded == []
    heard = reader.read_for(Task.ASR, entry)  # kept without audio, and read again
    assert len(heard.turns[0].audio) == entry.turns[0].num_samples
    assert reader.read_for(Task.TTS, entry) is heard is reader.read(entry)
    assert len(decoded) == 1
    # What is said is the same, with audio and without.
    one, other = (opened.maker.make(Task.TTS, entry, document) for document in (spoken, heard))
    assert np.array_equal(one.ids, other.ids)
    assert reader._room == (1 << 24) - FACTS_BYTES - heard.turns[0].audio.nbytes - heard.turns[0].codes.nbytes
    for each in opened.split(512).entries[:12]:
        deaf.read_for(Task.TTS, each)
    assert 12 * FACTS_BYTES < (1 << 24) - deaf._room < 13 * FACTS_BYTES
    assert reader.read_for(Task.TEXT, entry) is None
    assert len(decoded) == 1


def test_repeats_are_as_long_as_they_say_and_fit_their_sequences(opened: Opened, demo_recipe: TrainingRecipe) -> None:
    stage = demo_recipe.stages[1].model_copy(update={"sequence_length": 80})
    repeats = task_documents(opened.split(80), opened.reader, opened.maker, demo_recipe, stage)[Task.REPEAT]
    lengths = [repeats.num_tokens(position) for position in range(200)]
    assert [len(repeats.example(position).ids) for position in range(200)] == lengths
    assert max(lengths) <= min(repeats.longest, 80)
    assert [repeats.num_tokens(position) for position in range(200)] == lengths  # drawn again, not remembered
    assert len(set(lengths)) > 5


def test_a_repeat_is_of_its_document_or_of_none(opened: Opened, demo_recipe: TrainingRecipe) -> None:
    """What a repeat copies is its document's text, or spans of many texts, which name nobody; its position decides, read first or last."""
    split = opened.split(256)

    def drawn(share: float, positions: Sequence[int]) -> dict[int, Any]:
        repeat = demo_recipe.repeat.model_copy(update={"recombined_share": share})
        recipe = demo_recipe.model_copy(update={"repeat": repeat})
        source = task_documents(split, opened.reader, opened.maker, recipe, recipe.stages[1])[Task.REPEAT]
        made = {position: (source.entry(position), source.example(position)) for position in positions}
        for entry, example in made.values():
            copied = tuple(example.ids[example.weights > 0][:-1].tolist())
            assert example.document_id in (entry.key, NO_DOCUMENT)
            assert example.document_id == NO_DOCUMENT or copied == tuple(entry.turns[0].text_ids)
        return {position: (example.document_id, example.ids.tobytes()) for position, (_, example) in made.items()}

    places = range(60)
    named = [{key for key, _ in drawn(share, places).values()} for share in (0.0, 1.0)]
    assert (NO_DOCUMENT in named[0], named[1]) == (False, {NO_DOCUMENT})
    mixed = drawn(0.5, places)
    assert 10 < sum(key == NO_DOCUMENT for key, _ in mixed.values()) < 50
    assert drawn(0.5, places[::-1]) == mixed


@pytest.mark.parametrize("stage", range(4))  # ctc, text and repeat, asr, tts and asr
def test_documents_may_be_left_out_between_two_steps_and_no_other_moves(
    opened: Opened, demo_recipe: TrainingRecipe, stage: int
) -> None:
    split, left_out = opened.split(demo_recipe.longest_sequence), dict[str, None]()
    batching = replace(BATCHING, left_out=left_out)
    chosen = demo_recipe.stages[stage]
    data = stage_data(split, opened.reader, opened.maker, demo_recipe, chosen, batching)
    whole = stage_data(split, opened.reader, opened.maker, demo_recipe, chosen, BATCHING)
    assert content(data) == content(whole)
    left_out["d03"] = None
    seen = 0
    for _ in range(4):
        ours, theirs = (sorted(key for batch in one.next_step() for key in batch.document_ids) for one in (data, whole))
        seen += theirs.count("d03")
        assert [key for key in ours if key != NO_DOCUMENT] == [key for key in theirs if key not in ("d03", NO_DOCUMENT)]
        assert ours.count(NO_DOCUMENT) <= theirs.count(NO_DOCUMENT)  # spans of many, in the place of d03
        assert data.state_dict() == whole.state_dict()
    assert seen > 0


def test_a_step_may_have_nothing_left(opened: Opened, demo_recipe: TrainingRecipe) -> None:
    split = opened.split(demo_recipe.longest_sequence)
    batching = replace(BATCHING, left_out=[entry.key for entry in split.entries])
    for stage in (0, 3):
        data = stage_data(split, opened.reader, opened.maker, demo_recipe, demo_recipe.stages[stage], batching)
        assert sum(batch.weight for batch in data.next_step()) == 0


def test_two_threads_may_read_at_once(opened: Opened) -> None:
    """Measures read while the next steps are worked out, and what one is about to return the other may be putting out."""
    entries = opened.split(512).entries[:6]
    reader = DocumentReader(PackInMemory(opened.pack, entries), cached_audio_bytes=1)  # type: ignore[arg-type]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            for read in [pool.submit(lambda: [reader.read(entry).key for _ in range(2_000) for entry in entries]) for _ in "ab"]:
                assert read.result() == 2_000 * [entry.key for entry in entries]
    finally:
        sys.setswitchinterval(before)


class PackInMemory:
    """Documents of a pack that are in memory already."""

    def __init__(self, pack: Pack, entries: Sequence[Entry]) -> None:
        self.store = pack.store
        self._documents = {entry.key: pack.read(entry.shard, entry.key) for entry in entries}

    def read(self, shard: str, key: str, *, with_audio: bool) -> Document:
        return self._documents[key]
