from __future__ import annotations

from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from annotators.asr_schema import ASR_ADDS, SILENT_ROW, Word, asr_row
from annotators.consensus import ConsensusConfig
from manifests.contracts import ClipBatch
from manifests.schema import layer_schema
from manifests.scoring import scored_tokens

NAMES = ("whisper", "ctc", "third")
ABSTAINED = None
spoken = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mats"]), min_size=1, max_size=8)


def consensus(*rows: dict[str, Any] | None, **config: Any) -> dict[str, Any]:
    """The row of one clip, of which each layer says one row."""
    names = NAMES[: len(rows)]
    clip = b"\1" * 16
    layers = {
        name: pa.Table.from_pylist([{"clip_id": clip, "status": "ok", **(row or {})}], schema=layer_schema(ASR_ADDS))
        for name, row in zip(names, rows, strict=True)
    }
    part = ConsensusConfig(layers=names, **config).build()
    assert part.reads == names
    return part.annotate(ClipBatch(pa.table({"clip_id": pa.array([clip], pa.binary(16))}), layers=layers)).to_pylist()[0]


def said(text: str, language: str | None = "en", confidence: float | None = None) -> dict[str, Any]:
    return asr_row(text, language, None, confidence, None)


def timed(text: str, *edges: int, confidence: float | None = 0.9, language: str = "en") -> dict[str, Any]:
    words = [Word(word, start, end, confidence) for word, start, end in zip(text.split(), edges, edges[1:], strict=False)]
    return asr_row(text, language, words, confidence, None)


def test_two_of_three_win_and_the_writing_is_of_the_first_that_says_so() -> None:
    row = consensus(
        said("Hello, world! It is well-known."), said("hello word it is well known"), said("hello world it was well known")
    )
    assert row["text"] == "Hello, world! It is well-known."
    assert (row["status"], row["language"]) == ("ok", "en")
    assert (row["num_systems"], row["num_agreeing"], row["num_other_language"]) == (3, 1, 0)
    assert row["disagreement"] == pytest.approx((0 + 1 / 6 + 1 / 6) / 3)
    assert row["unsupported_ratio"] == 0.0
    assert row["closest_pair_disagreement"] == pytest.approx(1 / 6)
    assert row["widest_pair_disagreement"] == pytest.approx(2 / 6)
    assert row["words"] is None


def test_spelling_is_no_disagreement() -> None:
    row = consensus(said("Twenty-one colours."), said("21 colors"))
    assert (row["disagreement"], row["num_agreeing"]) == (0.0, 2)
    row = consensus(said("花了12.5元", "zh"), said("花了十二点五元", "zh"), said("花了十二點五元", "zh"))
    assert (row["disagreement"], row["num_agreeing"]) == (0.0, 3)


def test_chinese_is_voted_by_character_and_keeps_english_words() -> None:
    row = consensus(
        said("今天天汽很好，我用 Machine Learning。", "zh"),
        said("今天天气很号我用machine learning", "zh"),
        said("今大天气很好我用machine burning", "zh"),
    )
    assert row["text"] == "今天天气很好，我用 Machine Learning。"
    assert row["disagreement"] == pytest.approx((1 + 1 + 2) / 10 / 3)


def test_words_have_the_times_of_a_winner_and_the_score_as_confidence() -> None:
    row = consensus(
        said("the cat sat"), timed("the cat sat", 0, 100, 200, 300), timed("a cat sat", 0, 110, 210, 310, confidence=0.5)
    )
    assert [(word["word"], word["start_sample"], word["end_sample"]) for word in row["words"]] == [
        ("the", 0, 100), ("cat", 100, 200), ("sat", 200, 300),
    ]  # fmt: skip
    the, cat, _ = (word["confidence"] for word in row["words"])
    assert the == pytest.approx(0.8 * 2 / 3 + 0.2 * (0.5 + 0.9) / 2)
    assert cat == pytest.approx(0.8 + 0.2 * (0.5 + 0.9 + 0.5) / 3)
    assert row["confidence"] == pytest.approx((the + 2 * cat) / 3)
    assert row["avg_logprob"] is None


def test_a_word_of_several_characters_shares_its_time() -> None:
    row = consensus(timed("今天 好", 0, 100, 150, language="zh"), said("今天好", "zh"))
    assert [(word["word"], word["start_sample"], word["end_sample"]) for word in row["words"]] == [
        ("今", 0, 50), ("天", 50, 100), ("好", 100, 150),
    ]  # fmt: skip


def test_a_word_that_its_recogniser_could_not_align_is_in_the_text_alone() -> None:
    known = timed("the sat", 0, 100, 200) | {"text": "the 3 sat"}
    row = consensus(known, said("the 3 sat"))
    assert row["text"] == "the 3 sat"
    assert [word["word"] for word in row["words"]] == ["the", "sat"]
    assert row["num_unaligned_words"] == 1


def test_the_language_of_the_most_decides_who_votes() -> None:
    row = consensus(said("guten Tag", "de"), said("good day"), said("good day"))
    assert (row["text"], row["language"]) == ("good day", "en")
    assert (row["num_systems"], row["num_other_language"], row["disagreement"]) == (2, 1, 0.0)
    row = consensus(said("你好", "yue"), said("hello"), said("你好", "zh"))
    assert (row["text"], row["language"], row["num_other_language"]) == ("你好", "yue", 1)


def test_hearing_nothing_is_a_vote_and_having_no_text_is_none() -> None:
    row = consensus(said("thank you"), SILENT_ROW, SILENT_ROW)
    assert (row["text"], row["words"], row["num_systems"], row["num_agreeing"]) == ("", [], 3, 2)
    assert row["disagreement"] == pytest.approx(1 / 3)
    row = consensus(said("thank you"), said("thank you"), ABSTAINED)
    assert (row["text"], row["num_systems"]) == ("thank you", 2)
    row = consensus(SILENT_ROW, SILENT_ROW)
    assert (row["status"], row["text"], row["disagreement"], row["unsupported_ratio"]) == ("ok", "", 0.0, None)


def test_one_system_is_no_consensus() -> None:
    row = consensus(said("thank you"), ABSTAINED, ABSTAINED)
    assert (row["status"], row["text"], row["disagreement"], row["num_systems"]) == ("abstained", None, None, 1)
    row = consensus(said("guten Tag", "de"), said("good day"))
    assert (row["status"], row["text"], row["num_systems"], row["num_other_language"]) == ("abstained", None, 1, 1)
    row = consensus(ABSTAINED, ABSTAINED)
    assert (row["status"], row["num_systems"]) == ("abstained", None)
    row = consensus(said("thank you"), ABSTAINED, min_systems=1)
    assert (row["text"], row["num_systems"], row["disagreement"], row["unsupported_ratio"]) == ("thank you", 1, None, 1.0)


@given(spoken, spoken)
def test_two_that_agree_win_in_any_order(listed: list[str], other: list[str]) -> None:
    for rows in permutations([said(" ".join(listed)), said(" ".join(listed).upper()), said(" ".join(other), confidence=1.0)]):
        row = consensus(*rows)
        assert scored_tokens(row["text"], "en") == listed
        assert row["num_agreeing"] == (3 if listed == other else 2)
        assert (row["disagreement"] == 0) == (listed == other)


@given(st.lists(st.text(alphabet="ab ,.'中文かな-"), min_size=2, max_size=3), st.sampled_from(["en", "zh", "ja"]))
def test_the_text_is_made_of_what_was_said(texts: list[str], language: str) -> None:
    row = consensus(*(said(text, language) for text in texts))
    assert set("".join(row["text"].split())) <= set("".join(texts))
    assert 0 <= row["disagreement"] <= 1


def test_a_recogniser_has_one_vote() -> None:
    with pytest.raises(ValidationError, match="names one twice"):
        ConsensusConfig(layers=("asr", "asr"))
    with pytest.raises(ValidationError, match="min_systems = 3 is more than the 2 layers"):
        ConsensusConfig(layers=("asr", "asr_b"), min_systems=3)
