from __future__ import annotations

from typing import Any

import pytest

from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from tokenization.interleave import Ratio
from training.documents import Entry, ctc_fits, num_tokens, read_split, refusal
from training.examples import ExampleMaker
from training.recipe import Task


def entry(**changes: Any) -> Entry:
    facts: dict[str, Any] = {"key": "k", "shard": "s", "text": "x y", "text_ids": (1, 2), "num_samples": 16_000, "num_codes": 25}
    return Entry(**{**facts, "tasks": frozenset({"asr", "tts", "text"}), **changes})


@pytest.mark.parametrize(
    ("task", "changes", "reason"),
    [
        (Task.ASR, {}, None),
        (Task.ASR, {"text_ids": ()}, "no_text"),
        (Task.TEXT, {"text_ids": ()}, "no_text"),
        (Task.ASR, {"tasks": frozenset({"tts"})}, "not_offered"),
        (Task.REPEAT, {"tasks": frozenset()}, None),
        (Task.ASR, {"num_samples": None}, "no_audio"),
        (Task.ASR, {"num_samples": 320}, "audio_too_short"),
        (Task.ASR, {"num_samples": 321}, None),
        (Task.ASR, {"num_samples": 400_000}, "too_long"),
        (Task.CTC, {"num_samples": 400_000}, None),
        (Task.CTC, {"num_samples": 400_001}, "audio_too_long"),
        (Task.CTC, {"num_samples": 1600, "text_ids": (1, 1)}, "more_labels_than_frames"),
        (Task.TTS, {"num_codes": None}, "no_codes"),
        (Task.TTS, {"num_codes": 0}, "no_codes"),
        (Task.TTS, {"num_codes": 300}, "too_long"),
        (Task.TTS, {"num_samples": None}, None),
    ],
)
def test_a_document_is_refused_for_a_reason_that_has_a_name(task: Task, changes: dict[str, Any], reason: str | None) -> None:
    assert refusal(entry(**changes), task, Ratio(), max_tokens=300) == reason


def test_ctc_counts_a_blank_between_equal_labels() -> None:
    samples = 640 * 3  # three frames at 25 Hz
    assert ctc_fits(entry(num_samples=samples, text_ids=(1, 2, 1)))
    assert ctc_fits(entry(num_samples=samples, text_ids=(1, 1)))
    assert not ctc_fits(entry(num_samples=samples, text_ids=(1, 1, 2)))


def test_lengths_told_beforehand_are_those_of_the_examples(chord_pack: Any) -> None:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    split = read_split(pack, "train", tokenizer.text, tokenizer.ratio, max_tokens=512)
    maker = ExampleMaker(tokenizer.vocabulary, tokenizer.ratio)
    for known in split.entries:
        document = pack.read(known.shard, known.key)
        for task in (Task.ASR, Task.TTS):
            example = maker.of_document(task, document, list(known.text_ids))
            assert len(example.ids) == num_tokens(known, task, tokenizer.ratio)
        assert len(maker.text(known.key, list(known.text_ids)).ids) == num_tokens(known, Task.TEXT, tokenizer.ratio)


def test_documents_past_the_limit_are_refused_and_counted(chord_pack: Any) -> None:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    split = read_split(pack, "train", tokenizer.text, tokenizer.ratio, max_tokens=20)
    assert split.refused[Task.TTS]["too_long"] + len(split.eligible[Task.TTS]) == len(split.entries) == 12
    assert split.refused[Task.TTS]["too_long"] > 0
    with pytest.raises(RequestError, match="has no split 'dev'"):
        read_split(pack, "dev", tokenizer.text, tokenizer.ratio, max_tokens=20)
