from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.asr_schema import ASR_ADDS, Word, asr_row
from annotators.text_facts import TextConfig, TextFacts
from manifests.contracts import ClipBatch
from manifests.schema import CLIPS, layer_schema

RATE = 8000  # of the clips; words are at 16 kHz


@pytest.fixture(scope="module")
def part() -> TextFacts:
    return TextConfig(asr="whisper").build()


def facts(part: TextFacts, row: dict[str, Any] | None, speech_s: list[tuple[float, float]]) -> dict[str, Any]:
    """Facts about one clip of 10 s in which VAD heard speech in those spans."""
    spans = [{"start_sample": int(start * RATE), "end_sample": int(end * RATE)} for start, end in speech_s]
    ids = [b"\1" * 16]
    clip = {
        "clip_id": ids[0], "recording_id": ids[0], "channel": 0, "sample_rate_hz": RATE, "start_sample": 0, "end_sample": 10 * RATE,
        "speech_samples": sum(s["end_sample"] - s["start_sample"] for s in spans), "overlap_samples": 0,
        "speech_spans": spans, "overlap_spans": [],
    }  # fmt: skip
    clips = pa.Table.from_pylist([clip], schema=CLIPS)
    layer = pa.Table.from_pylist([{"clip_id": ids[0], "status": "ok", **(row or {})}], schema=layer_schema(ASR_ADDS))
    return part.annotate(ClipBatch(clips, layers={"whisper": layer, "clip": clips})).to_pylist()[0]


def said(text: str, language: str | None, words: list[Word] | None = None) -> dict[str, Any]:
    return asr_row(text, language, words, None, None)


def test_reads_the_layer_that_its_recipe_names(part: TextFacts) -> None:
    assert part.reads == ("whisper", "clip")


def test_facts_of_an_ordinary_sentence(part: TextFacts) -> None:
    row = facts(part, said("He paid $5 for the twenty-one colours.", "en"), [(0.0, 2.0)])
    assert row["text_language"] == "en"
    assert row["text_language_prob"] > 0.9
    assert row["language_agrees"] is True
    assert (row["script"], row["num_scripts"], row["minor_script_share"]) == ("Latn", 1, 0.0)
    assert row["char_rate_hz"] == 29 / 2.0
    assert (row["word_rate_hz"], row["num_tokens"]) == (8 / 2.0, 8)
    assert (row["longest_repeat"], row["repeated_ngram_ratio"], row["unique_word_ratio"]) == (1, 0.0, 1.0)
    assert row["longest_word_chars"] == 7
    assert row["hallucination"] is None
    assert row["hallucination_share"] == 0.0
    assert row["normalised_text"] == "he paid $5 for the 21 colors"
    assert row["spoken_text"] == "He paid five dollars for the twenty-one colours."


def test_a_loop_of_digits_is_told_by_its_repeats_whatever_number_it_would_be(part: TextFacts) -> None:
    row = facts(part, said("1" + ",000" * 110, "en"), [(0.0, 2.0)])
    assert (row["status"], row["spoken_text"]) == ("ok", None)
    assert row["compression_ratio"] > 2.4


def test_chinese_with_english_inside(part: TextFacts) -> None:
    row = facts(part, said("我们今天学习machine learning的基础", "zh"), [(0.0, 4.0)])
    assert (row["text_language"], row["language_agrees"]) == ("zh", True)
    assert (row["script"], row["num_scripts"]) == ("Latn", 2)  # more letters are Latin
    assert row["num_tokens"] == 11
    assert row["word_rate_hz"] is None
    assert row["longest_word_chars"] is None


def test_text_in_another_language_than_the_audio_is_told(part: TextFacts) -> None:
    row = facts(part, said("Das ist ein ganz gewöhnlicher deutscher Satz", "en"), [(0.0, 2.0)])
    assert (row["text_language"], row["language_agrees"]) == ("de", False)
    row = facts(part, said("我哋今日去食飯，你嚟唔嚟？", "yue"), [(0.0, 2.0)])
    assert row["language_agrees"] is True


def test_a_word_has_no_language(part: TextFacts) -> None:
    row = facts(part, said("no", "en"), [(0.0, 1.0)])
    assert (row["text_language"], row["text_language_prob"], row["language_agrees"]) == (None, None, None)
    row = facts(part, said("seven", "en"), [(0.0, 1.0)])
    assert (row["text_language"], row["language_agrees"]) == (None, None)
    assert row["text_language_prob"] < 0.35


def test_a_loop_shows(part: TextFacts) -> None:
    row = facts(part, said("I think " * 30, "en"), [(0.0, 3.0)])
    assert (row["longest_repeat"], row["repeated_ngram_ratio"]) == (30, 1.0)
    assert row["compression_ratio"] > 2.4
    assert row["unique_word_ratio"] == pytest.approx(2 / 60)


def test_a_known_hallucination_is_named(part: TextFacts) -> None:
    row = facts(part, said("ご視聴ありがとうございました。", "ja"), [(0.0, 3.0)])
    assert (row["hallucination"], row["hallucination_kind"], row["hallucination_share"]) == (
        "ご視聴ありがとうございました",
        "closings",
        1.0,
    )
    row = facts(part, said("Thank you.", "en"), [])
    assert (row["hallucination"], row["char_rate_hz"]) == ("Thank you", None)


def test_speech_that_no_word_covers(part: TextFacts) -> None:
    words = [Word("one", 16_000, 24_000, None), Word("two", 24_000, 32_000, None)]  # 1.0 to 2.0 s, 0.25 s either side
    row = facts(part, said("one two", "en", words), [(0.9, 2.2), (5.0, 6.0), (9.0, 9.5)])
    assert row["uncovered_speech_s"] == pytest.approx(1.5)
    assert row["uncovered_speech_share"] == pytest.approx(1.5 / 2.8)


def test_without_word_times_coverage_is_known_only_of_an_empty_text(part: TextFacts) -> None:
    assert facts(part, said("one two", "en"), [(0.0, 2.0)])["uncovered_speech_s"] is None
    row = facts(part, said("", None), [(1.0, 3.0)])
    assert (row["status"], row["uncovered_speech_s"], row["uncovered_speech_share"]) == ("ok", 2.0, 1.0)
    assert (row["num_tokens"], row["normalised_text"], row["unique_word_ratio"], row["longest_repeat"]) == (0, "", None, 0)
    row = facts(part, said("", None), [])
    assert (row["uncovered_speech_s"], row["uncovered_speech_share"]) == (0.0, None)


def test_no_text_is_no_facts(part: TextFacts) -> None:
    row = facts(part, None, [(0.0, 2.0)])
    assert row.pop("status") == "abstained"
    assert {value for name, value in row.items() if name != "clip_id"} == {None}


def test_languages_may_be_narrowed() -> None:
    row = facts(
        TextConfig(asr="whisper", languages=("de", "nl")).build(), said("this is plainly english text", None), [(0.0, 2.0)]
    )
    assert row["text_language"] in {"de", "nl", None}
    with pytest.raises(ValidationError, match="'xx', which is not known"):
        TextConfig(languages=("en", "xx"))


def test_phrases_and_tables_are_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TextConfig().build().fingerprint()
    assert TextConfig(ngram=4).build().fingerprint() != before
    monkeypatch.setattr("annotators.text_facts.phrases_digest", lambda: "another")
    assert TextConfig().build().fingerprint() != before
