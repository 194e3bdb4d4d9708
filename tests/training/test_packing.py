from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError
from tokenization.interleave import DEFAULT_RATIO
from training.lengths import num_heard_tokens
from training.mixing import Mixer
from training.packing import PackedSequence, Packer

LONGEST = 30


@dataclass(frozen=True)
class Lengths:
    """A source of documents of these lengths, the same in every epoch."""

    values: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def num_tokens(self, position: int) -> int:
        return self.values[position % len(self.values)]


lengths = st.lists(st.one_of(st.integers(1, 4), st.integers(1, LONGEST)), min_size=1, max_size=12).map(
    lambda v: Lengths(tuple(v))
)
shares = st.one_of(st.sampled_from([0.01, 0.1, 1.0, 3.0]), st.floats(0.01, 1.0))


@dataclass(frozen=True)
class Mix:
    """What a packer is made from."""

    sources: dict[str, Lengths]
    shares: dict[str, float]
    sequence_length: int
    window: int

    @property
    def longest(self) -> int:
        return max(max(source.values) for source in self.sources.values())

    def packer(self) -> Packer:
        return Packer(self.sources, self.shares, self.sequence_length, self.longest, self.window)


@st.composite
def mixes(draw: Any) -> Mix:
    tasks = [f"t{number}" for number in range(draw(st.integers(1, 6)))]
    sources = {task: draw(lengths) for task in tasks}
    return Mix(sources, {task: draw(shares) for task in tasks}, draw(st.integers(LONGEST, 150)), draw(st.sampled_from([1, 2, 8])))


def taken(packer: Packer, number: int) -> list[PackedSequence]:
    return [packer.next_sequence() for _ in range(number)]


@settings(max_examples=40, deadline=None)
@given(mixes())
def test_sequences_are_numbered_and_hold_whole_documents_up_to_their_length(mix: Mix) -> None:
    for number, sequence in enumerate(taken(mix.packer(), 12)):
        assert sequence.number == number
        assert 0 < sequence.num_tokens <= mix.sequence_length
        for document in sequence.documents:
            assert document.num_tokens == mix.sources[document.task].num_tokens(document.position)


@settings(max_examples=40, deadline=None)
@given(mixes())
def test_every_document_of_an_epoch_comes_once_and_before_any_of_the_next(mix: Mix) -> None:
    by_task: dict[str, list[int]] = {task: [] for task in mix.sources}
    for sequence in taken(mix.packer(), 25):
        for document in sequence.documents:
            by_task[document.task].append(document.position)
    for task, positions in by_task.items():
        size = len(mix.sources[task])
        for start in range(0, len(positions) - size + 1, size):
            assert sorted(positions[start : start + size]) == list(range(start, start + size))
        assert len(set(positions)) == len(positions)


@settings(max_examples=80, deadline=None)
@given(mixes())
def test_every_task_stays_within_one_longest_document_of_its_share(mix: Mix) -> None:
    packer, given_tokens, whole = mix.packer(), Counter[str](), sum(mix.shares.values())
    for sequence in taken(packer, 40):
        for document in sequence.documents:
            given_tokens[document.task] += document.num_tokens
        for task, share in mix.shares.items():
            assert abs(given_tokens[task] - given_tokens.total() * share / whole) <= mix.longest + 1e-6
    assert packer.mixer.given == {task: given_tokens[task] for task in mix.sources}
    drifts = packer.mixer.drift()
    assert drifts[task] == pytest.approx(given_tokens[task] - given_tokens.total() * share / whole)


@settings(max_examples=30, deadline=None)
@given(mixes(), st.integers(0, 15), st.integers(0, 15))
def test_a_packer_that_is_put_down_and_taken_up_twice_goes_on_the_same(mix: Mix, first: int, second: int) -> None:
    whole = taken(mix.packer(), first + second + 10)
    packer, found = mix.packer(), []
    for number in (first, second, 10):
        state = json.loads(json.dumps(packer.state_dict()))  # as a checkpoint holds it
        packer = mix.packer()
        packer.load_state_dict(state)
        found += taken(packer, number)
    assert found == whole


def test_shares_are_met_to_a_thousandth_once_a_thousand_longest_documents_are_through() -> None:
    speech, text = Lengths((900, 400, 650, 20, 77)), Lengths((12, 45, 31, 600))
    packer = Packer({"tts": speech, "asr": speech, "text": text}, {"tts": 0.6, "asr": 0.05, "text": 0.35}, 2048, 900)
    while sum(packer.mixer.given.values()) < 1000 * 900:
        packer.next_sequence()
    total = sum(packer.mixer.given.values())
    for task, share in (("tts", 0.6), ("asr", 0.05), ("text", 0.35)):
        assert abs(packer.mixer.given[task] / total - share) < 0.001


def test_little_of_a_sequence_is_padding_at_the_lengths_of_real_speech(shared: Path) -> None:
    """Read English of ../shared/speech at 8,192: heard and spoken, in the shares of the report's main stage."""
    with open(shared / "speech" / "manifest.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    clips = [(row["num_samples"], len(row["transcript"]) // 4 + 1) for row in rows if row["path"].startswith("read/")]
    asr = Lengths(tuple(num_heard_tokens(samples) + text + 1 for samples, text in clips))
    tts = Lengths(tuple(text + 3 + 5 * DEFAULT_RATIO.num_groups(text, samples // 640) for samples, text in clips))
    packer = Packer({"asr": asr, "tts": tts}, {"asr": 42, "tts": 120}, 8192, max(*asr.values, *tts.values))
    padding = [8192 - sequence.num_tokens for sequence in taken(packer, 200)]
    assert sum(padding) < 0.02 * 8192 * len(padding)


def test_a_document_that_no_sequence_holds_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ContractError, match="9 tokens for sequences of 8; refuse it before"):
        Packer({"asr": Lengths((9,))}, {"asr": 1.0}, 8, 9)


def turns(mixer: Mixer, tokens: int) -> Iterator[str]:
    """Who is given how often when all documents are of one length."""
    while True:
        task = mixer.turn(dict.fromkeys(mixer.given, tokens))
        mixer.give(task, tokens)
        yield task


def test_equal_documents_come_evenly_at_their_shares() -> None:
    given_turns = turns(Mixer({"a": 0.5, "b": 0.25, "c": 0.25}, 10), 10)
    assert Counter(next(given_turns) for _ in range(4)) == {"a": 2, "b": 1, "c": 1}
    assert Counter(next(given_turns) for _ in range(400)) == {"a": 200, "b": 100, "c": 100}


def test_shares_that_no_float_holds_exactly_are_still_compared_exactly() -> None:
    """A third and a tenth: after many turns the drift is still below one document, as with round shares."""
    mixer = Mixer({"a": 1 / 3, "b": 0.1, "c": 1 - 1 / 3 - 0.1}, 7)
    given_turns = turns(mixer, 7)
    for _ in range(3000):
        next(given_turns)
        assert max(abs(drift) for drift in mixer.drift().values()) < 7
