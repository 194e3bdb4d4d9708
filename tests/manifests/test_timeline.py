from __future__ import annotations

import pytest

from manifests.corpus import Corpus
from manifests.timeline import ENVELOPE_POINTS_A_S, ERRORS, Timeline, timelines


@pytest.fixture
def talk(tiny_corpus: str) -> Timeline:
    (only,) = timelines(Corpus.open(tiny_corpus), "vad", "diarization")
    return only


def test_lanes_lie_below_each_other_reference_first(talk: Timeline) -> None:
    assert [(lane.group, lane.label) for lane in talk.lanes] == [
        ("reference", "ada"),
        ("reference", "bob"),
        ("diarization", "B"),  # matched to ada, so it comes first and has her colour
        ("diarization", "A"),
        ("VAD", "speech"),
        ("errors", "differs"),
    ]
    assert {bar.tone for bar in talk.lanes[0].bars} == {bar.tone for bar in talk.lanes[2].bars} == {0}
    assert {bar.tone for bar in talk.lanes[3].bars} == {None}


def test_a_turn_tells_its_words(talk: Timeline) -> None:
    assert talk.lanes[0].bars[0].hint == "ada 1.00–5.00 s “Hello there.”"


def test_the_errors_drawn_add_up_to_the_score(talk: Timeline) -> None:
    assert talk.score is not None
    drawn = [sum(bar.end_s - bar.start_s for bar in talk.lanes[-1].bars if bar.tone == tone) for tone in range(len(ERRORS))]
    told = [talk.score.missed_s, talk.score.false_alarm_s, talk.score.confusion_s]
    assert drawn == pytest.approx(told, abs=0.03)


def test_the_envelope_follows_the_stored_audio(talk: Timeline) -> None:
    assert (talk.duration_s, talk.shown_s) == (130.0, 130.0)
    assert len(talk.envelope) == 130 * ENVELOPE_POINTS_A_S
    assert max(talk.envelope) == 1.0
    # The stored ramp rises over every 4 s.
    assert talk.envelope[:75] == sorted(talk.envelope[:75])


def test_no_reference_no_drawing(tiny_corpus: str) -> None:
    assert timelines(Corpus.open(tiny_corpus), "vad", "diarization", limit=0) == []
