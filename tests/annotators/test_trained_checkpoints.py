"""What recognisers and classifiers say is right, on checkpoints that really know a dozen words, through the real loading code.

Phrases and speakers are held out: no training phrase has these voices, and most texts occur in none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow as pa
import pytest

from annotators.audio_classifier import AudioClassifierConfig
from annotators.hf_asr import HfAsrConfig
from annotators.whisperx_asr import WhisperxConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from tests.checkpoints.spoken_words import HELD_OUT_SPEAKERS, Phrase, phrases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first run on a machine trains for minutes
MS = MODEL_RATE_HZ / 1000
MAX_WER = 0.05
MAX_CER = 0.05
FEWEST_RIGHT = 0.6  # of the phrases: the network of letters runs words together where a speaker leaves no gap


@pytest.fixture(scope="module")
def held_out() -> list[Phrase]:
    """English and German in turn, so that every batch is mixed."""
    return phrases(40, seed=99, speakers=HELD_OUT_SPEAKERS)


def heard(config: Any, *clips: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(clips))], pa.binary(16))
    return config.build().annotate(ClipBatch(pa.table({"clip_id": ids}), clips, [MODEL_RATE_HZ] * len(clips))).to_pylist()


def word_errors_ms(rows: list[dict[str, Any]], spoken: list[Phrase]) -> np.ndarray:
    """How far the edges of the words of rightly heard phrases are from the truth, ``[edges]``."""
    right = [(row, phrase) for row, phrase in zip(rows, spoken, strict=True) if row["text"] == phrase.text]
    assert len(right) >= FEWEST_RIGHT * len(spoken)
    found = [(word["start_sample"], word["end_sample"]) for row, _ in right for word in row["words"]]
    truth = [(word.start_sample, word.end_sample) for _, phrase in right for word in phrase.words]
    return np.abs(np.array(found) - np.array(truth)).ravel() / MS


def wer(rows: list[dict[str, Any]], spoken: list[Phrase]) -> float:
    return float(jiwer.wer([phrase.text for phrase in spoken], [row["text"] for row in rows]))


@pytest.fixture(scope="module")
def by_whisperx(trained_whisper: Path, trained_letters: str, held_out: list[Phrase]) -> list[dict[str, Any]]:
    config = WhisperxConfig(
        model=str(trained_whisper / "ctranslate2"), align_models={"en": trained_letters, "de": trained_letters}
    )
    return heard(config, *(phrase.audio for phrase in held_out))


@pytest.fixture(scope="module")
def by_whisper(trained_whisper: Path, held_out: list[Phrase]) -> list[dict[str, Any]]:
    return heard(HfAsrConfig(model=str(trained_whisper / "transformers")), *(phrase.audio for phrase in held_out))


@pytest.fixture(scope="module")
def by_letters(trained_letters: str, held_out: list[Phrase]) -> list[dict[str, Any]]:
    return heard(HfAsrConfig(model=trained_letters), *(phrase.audio for phrase in held_out))


@pytest.mark.parametrize("recogniser", ["by_whisperx", "by_whisper"])
def test_whisper_hears_words_and_language_of_mixed_batches(
    recogniser: str, held_out: list[Phrase], request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(recogniser)
    assert {row["status"] for row in rows} == {"ok"}
    assert wer(rows, held_out) <= MAX_WER
    assert [row["language"] for row in rows] == [phrase.language for phrase in held_out]
    assert np.median([row["language_prob"] for row in rows]) > 0.9


def test_both_readers_of_one_whisper_agree(by_whisperx: list[dict[str, Any]], by_whisper: list[dict[str, Any]]) -> None:
    """CTranslate2 and transformers compute the same network: its text and its own probability of it."""
    alike = [(ours, theirs) for ours, theirs in zip(by_whisperx, by_whisper, strict=True) if ours["text"] == theirs["text"]]
    assert len(alike) >= 0.95 * len(by_whisper)
    for ours, theirs in alike:
        assert ours["avg_logprob"] == pytest.approx(theirs["avg_logprob"], abs=0.05)


def test_whisperx_words_are_where_they_were_said(by_whisperx: list[dict[str, Any]], held_out: list[Phrase]) -> None:
    errors_ms = word_errors_ms(by_whisperx, held_out)
    assert np.median(errors_ms) <= 80
    assert np.quantile(errors_ms, 0.9) <= 160
    assert {row["align_error"] for row in by_whisperx} == {None}


def test_whisper_looks_where_the_words_were_said(by_whisper: list[dict[str, Any]], held_out: list[Phrase]) -> None:
    assert np.median(word_errors_ms(by_whisper, held_out)) <= 80


def test_ctc_letters_spell_the_words_where_they_were_said(by_letters: list[dict[str, Any]], held_out: list[Phrase]) -> None:
    # By letters: which words it runs together differs from one training machine to the next (WER 5 to 12 %).
    assert jiwer.cer([phrase.text for phrase in held_out], [row["text"] for row in by_letters]) <= MAX_CER
    assert np.median(word_errors_ms(by_letters, held_out)) <= 80
    assert np.median([row["confidence"] for row in by_letters]) > 0.8


def test_a_stated_language_is_as_good_as_a_detected_one(
    trained_whisper: Path, held_out: list[Phrase], by_whisperx: list[dict[str, Any]]
) -> None:
    config = WhisperxConfig(model=str(trained_whisper / "ctranslate2"), language="de")
    german = [number for number, phrase in enumerate(held_out) if phrase.language == "de"]
    rows = heard(config, *(held_out[number].audio for number in german))
    assert [row["text"] for row in rows] == [by_whisperx[number]["text"] for number in german]
    assert {(row["language"], row["language_prob"], row["words"]) for row in rows} == {("de", None, None)}


@pytest.fixture(scope="module")
def well_heard(by_whisperx: list[dict[str, Any]], held_out: list[Phrase]) -> list[Phrase]:
    """The English phrases whose every word whisperx gets right."""
    pairs = zip(by_whisperx, held_out, strict=True)
    return [phrase for row, phrase in pairs if row["text"] == phrase.text and phrase.language == "en"]


def test_a_long_clip_is_heard_window_by_window(trained_whisper: Path, trained_letters: str, well_heard: list[Phrase]) -> None:
    """Two phrases, the second one 30 s later: its words have the times of the clip, not of their window."""
    first, second = well_heard[:2]
    start = 30 * MODEL_RATE_HZ
    clip = np.zeros(start + len(second.audio), np.float32)
    clip[: len(first.audio)], clip[start:] = first.audio, second.audio
    config = WhisperxConfig(model=str(trained_whisper / "ctranslate2"), align_models={"en": trained_letters})
    (row,) = heard(config, clip)
    assert row["text"] == f"{first.text} {second.text}"
    found = [word["start_sample"] for word in row["words"]]
    truth = [word.start_sample for word in first.words] + [start + word.start_sample for word in second.words]
    assert np.median(np.abs(np.array(found) - truth)) / MS <= 80


def test_a_text_that_does_not_fit_says_so(trained_whisper: Path, trained_letters: str, well_heard: list[Phrase]) -> None:
    """What cannot lie in 0.2 s has no words and a reason; so has a text in a language without an aligner, which stays."""
    from annotators.checkpoints import find_checkpoint
    from annotators.ctc_network import CtcNetwork

    network = CtcNetwork(find_checkpoint(trained_letters), "cpu")
    short = well_heard[0].audio[: MODEL_RATE_HZ // 5]
    alignment = network.align(short, "window yellow orange", "en")
    assert (alignment.words, alignment.num_unaligned, alignment.error) == ([], 3, "more letters than frames")
    config = WhisperxConfig(model=str(trained_whisper / "ctranslate2"), align_models={"fr": trained_letters})
    (row,) = heard(config, well_heard[0].audio)
    assert row["text"] == well_heard[0].text
    assert row["words"] is None
    assert row["num_unaligned_words"] == len(well_heard[0].words)
    assert row["align_error"]


def test_the_classifier_tells_women_from_men(trained_sexes: str, held_out: list[Phrase]) -> None:
    rows = heard(AudioClassifierConfig(dimension="gender", model=trained_sexes), *(phrase.audio for phrase in held_out))
    right = [row["value"] == phrase.sex for row, phrase in zip(rows, held_out, strict=True)]
    assert np.mean(right) >= 0.9
