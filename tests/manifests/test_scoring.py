from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.scoring import Segment, Turn, read_rttm, read_stm, score_corpus, score_diarization, score_words, scored_tokens
from manifests.snapshots import Snapshot

REFERENCE = [Turn(0.0, 4.0, "ada"), Turn(4.0, 8.0, "bob")]


def rate(hypothesis: list[Turn], **settings: float) -> float:
    score = score_diarization("r", REFERENCE, hypothesis, 10.0, **settings)
    return score.error_s / score.reference_s


def test_labels_do_not_matter_and_are_mapped() -> None:
    score = score_diarization("r", REFERENCE, [Turn(0, 4, "1"), Turn(4, 8, "0")], 10.0)
    assert score.error_s == pytest.approx(0)
    assert score.labels == {"1": "ada", "0": "bob"}


def test_each_kind_of_error_is_told_apart() -> None:
    missed = score_diarization("r", REFERENCE, [Turn(0, 3, "a"), Turn(4, 8, "b")], 10.0)
    assert (missed.missed_s, missed.false_alarm_s, missed.confusion_s) == pytest.approx((1, 0, 0))
    alarm = score_diarization("r", REFERENCE, [Turn(0, 4, "a"), Turn(4, 9.5, "b")], 10.0)
    assert (alarm.missed_s, alarm.false_alarm_s, alarm.confusion_s) == pytest.approx((0, 1.5, 0))
    mixed = score_diarization("r", REFERENCE, [Turn(0, 5, "a"), Turn(5, 8, "b")], 10.0)
    assert (mixed.missed_s, mixed.false_alarm_s, mixed.confusion_s) == pytest.approx((0, 0, 1))


def test_overlap_is_scored_and_a_collar_forgives_edges() -> None:
    both = [*REFERENCE, Turn(2, 4, "bob")]
    assert score_diarization("r", both, [Turn(0, 4, "a"), Turn(4, 8, "b")], 10.0).missed_s == pytest.approx(2)
    assert rate([Turn(0, 3.9, "a"), Turn(4, 8, "b")]) == pytest.approx(0.1 / 8)
    assert rate([Turn(0, 3.9, "a"), Turn(4, 8, "b")], collar_s=0.5) == pytest.approx(0)


def test_nobody_found_is_all_missed() -> None:
    assert rate([]) == pytest.approx(1.0)


def test_words_are_compared_without_case_and_punctuation() -> None:
    score = score_words("r", "Well, it's me! (Hello)", "well its me hello you", "en")
    assert (score.unit, score.num_reference) == ("words", 4)
    assert (score.substitutions, score.deletions, score.insertions) == (1, 0, 1)


def test_chinese_is_scored_by_characters() -> None:
    score = score_words("r", "广州市 房地产。", "广州 房产", "zh")
    assert (score.unit, score.num_reference, score.deletions, score.num_errors) == ("characters", 6, 2, 2)


def test_silence_with_words_counts_as_insertions() -> None:
    score = score_words("r", "", "three words here", "en")
    assert (score.num_reference, score.insertions) == (0, 3)
    assert score_words("r", "a b", "", "en").deletions == 2


@given(st.text(max_size=40), st.sampled_from(["en", "zh", None]))
def test_a_text_fits_itself_however_it_is_written(text: str, language: str | None) -> None:
    assert score_words("r", text, text, language).num_errors == 0
    assert scored_tokens(" ".join(scored_tokens(text, language)), language) == scored_tokens(text, language)


def test_references_are_read(tiny_corpus: str) -> None:
    folder = Path(tiny_corpus).parent
    assert read_rttm(str(folder / "talk.rttm"))[1] == Turn(6.0, 10.0, "bob")
    assert read_stm(str(folder / "talk.stm"))[:2] == [
        Segment(1.0, 5.0, "ada", "Hello there."),
        Segment(6.0, 10.0, "bob", "Well, hello!"),
    ]


def test_a_broken_reference_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_text("SPEAKER a 1 x 1.0")
    with pytest.raises(RequestError, match="line 1"):
        read_rttm(str(tmp_path / "a.rttm"))
    (tmp_path / "a.stm").write_text("talk 1 ada")
    with pytest.raises(RequestError, match="line 1"):
        read_stm(str(tmp_path / "a.stm"))


def test_a_corpus_is_scored_against_what_its_inputs_name(tiny_corpus: str) -> None:
    scores = score_corpus(Corpus.open(tiny_corpus))
    # talk: 18 s said; 1 s missed, and the last 10 s given to the speaker of the second turn: the best map takes bob for
    # the longer stretch, so the 4 s of the true bob are confused.
    assert scores.diarization[0].missed_s == pytest.approx(1.0)
    assert scores.diarization[0].confusion_s == pytest.approx(4.0 + 3.0)
    assert scores.der == pytest.approx(8 / 18)
    by_name = {score.recording: score for score in scores.words}
    assert sorted(by_name) == ["note.wav", "other.wav", "talk.wav"]
    assert (by_name["talk.wav"].num_reference, by_name["talk.wav"].substitutions) == (8, 1)
    assert by_name["other.wav"].unit == "characters"
    assert scores.word_rate("words") == pytest.approx((1 + by_name["note.wav"].num_errors) / 10)
    assert scores.notes == []


def test_what_cannot_be_scored_is_said(tiny_corpus: str) -> None:
    corpus = Corpus.open(tiny_corpus)
    kept = {o: f for o, f in corpus.snapshot.current.items() if o not in ("layers/turns/asr", "spans/diarization")}
    bare = Corpus(corpus.store, corpus.head, Snapshot(**{**corpus.snapshot.__dict__, "current": kept}))
    scores = score_corpus(bare)
    assert scores.der is scores.word_rate("words") is None
    assert scores.notes == ["no DER: the corpus has no spans of 'diarization'", "no WER: the corpus has no layer 'asr'"]


def test_a_reference_that_cannot_be_read_costs_only_its_own_figure(tiny_corpus: str) -> None:
    rttm = Path(tiny_corpus).parent / "talk.rttm"
    text = rttm.read_text()
    try:
        for broken in (b"SPEAKER talk 1 x", b"\xff\xfe\x00"):
            rttm.write_bytes(broken)
            scores = score_corpus(Corpus.open(tiny_corpus))
            assert scores.diarization == []
            assert "talk.wav: reference" in scores.notes[0]
            assert len(scores.words) == 3
    finally:
        rttm.write_text(text)
