from __future__ import annotations

from collections import Counter

import pytest

from annotators.hallucinations import KINDS, Match, find_hallucination, phrases


def found(text: str, speech_s: float = 3.0) -> Match | None:
    return find_hallucination(text, speech_s, most=0.5, little_speech_s=0.5)


def test_the_list_has_ten_languages_and_no_phrase_twice_or_without_words() -> None:
    listed = phrases()
    assert len({phrase.language for phrase in listed if phrase.kind == "credits"}) >= 10
    assert {phrase.kind for phrase in listed} == set(KINDS)
    assert all(all(phrase.keys) and phrase.keys for phrase in listed)
    assert [key for key, count in Counter((p.language, p.kind, p.keys) for p in listed).items() if count > 1] == []


@pytest.mark.parametrize("phrase", [p.phrase for p in phrases() if p.kind != "fillers"])
def test_every_phrase_alone_is_found(phrase: str) -> None:
    match = found(f"♪ {phrase}!")
    assert match is not None
    assert match.share == 1.0


def test_credits_count_wherever_they_stand() -> None:
    match = found("and that was the end of it. UNTERTITEL der Amara.org-Community")
    assert match is not None
    assert (match.phrase.language, match.phrase.kind, match.share) == ("de", "credits", 5 / 12)


def test_closings_count_where_they_are_most_of_the_text() -> None:
    assert found("So this was the last lecture of the term. Thank you for watching!") is None
    match = found("Bye! Thanks for watching.")
    assert match is not None
    assert (match.phrase.phrase, match.share) == ("Thanks for watching", 0.75)
    assert found("谢谢大家来参加今天的会议") is None
    assert found("謝謝大家") is not None


def test_fillers_count_where_hardly_anybody_speaks() -> None:
    assert found("Thank you.", speech_s=1.0) is None
    match = found("Thank you.", speech_s=0.2)
    assert match is not None
    assert (match.phrase.phrase, match.phrase.kind) == ("Thank you", "fillers")
    assert found("Thank you, Mary.", speech_s=0.2) is None


def test_a_phrase_inside_another_word_is_none() -> None:
    assert found("unsubscribed pleasesubscribe", speech_s=0.1) is None
    assert found("") is None
