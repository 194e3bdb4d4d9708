from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from annotators.rover import INSERTION, SUBSTITUTION, Ballot, align, build_network, vote

ALPHA, NULL = 0.8, 0.5

words = st.lists(st.sampled_from("abcd"), max_size=8)
confidences = st.integers(0, 1000).map(lambda n: n / 1000)
ballots = st.lists(st.builds(Ballot, st.sampled_from("abcd"), confidences), max_size=8)


def said(*texts: str) -> list[list[Ballot]]:
    return [[Ballot(word) for word in text.split()] for text in texts]


def winners(systems: list[list[Ballot]], alpha: float = ALPHA, null_confidence: float = NULL) -> str:
    return " ".join(winner.key for winner in vote(systems, alpha, null_confidence))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # Each has one error of its own: a substitution, a deletion, an insertion.
        (["the cat sat on the hat", "the cat sat on mat", "the cat that sat on the mat"], "the cat sat on the mat"),
        (["a b c d", "b c d", "a b d"], "a b c d"),
        (["x a b", "a b", "a b y"], "a b"),
        (["a b c", "", "a b c"], "a b c"),
        (["a b c", "", ""], ""),
        (["", "", ""], ""),
        (["one two three", "one too three", "won two free"], "one two three"),
    ],
)
def test_known_outcomes(texts: list[str], expected: str) -> None:
    assert winners(said(*texts)) == expected


def test_of_two_that_differ_the_surer_wins_and_without_confidence_the_first() -> None:
    sure, unsure = [Ballot("a"), Ballot("cat", 0.9)], [Ballot("a"), Ballot("hat", 0.4)]
    assert winners([unsure, sure]) == winners([sure, unsure]) == "a cat"
    assert winners(said("a cat", "a hat")) == "a cat"
    assert winners(said("a hat", "a cat")) == "a hat"


def test_a_word_that_one_of_two_says_stays_where_it_is_surer_than_nothing() -> None:
    assert winners([[Ballot("a", 0.9), Ballot("b", 0.6)], [Ballot("a", 0.9)]]) == "a b"
    assert winners([[Ballot("a", 0.9), Ballot("b", 0.4)], [Ballot("a", 0.9)]]) == "a"


def test_confidence_can_overrule_two_only_where_alpha_is_low() -> None:
    systems = [[Ballot("a", 1.0)], [Ballot("b", 0.1)], [Ballot("b", 0.1)]]
    assert winners(systems, alpha=0.8) == "b"
    assert winners(systems, alpha=0.5) == "a"


def test_a_winner_names_score_and_who_said_it() -> None:
    (winner,) = vote([[Ballot("a", 0.9)], [Ballot("x"), Ballot("a", 0.7)], [Ballot("b", 0.2)]], ALPHA, NULL)
    assert winner.key == "a"
    assert winner.said_by == ((0, 0), (1, 1))
    assert winner.score == pytest.approx(0.8 * 2 / 3 + 0.2 * 0.8)


@given(words, st.integers(1, 4))
def test_all_agreeing_is_the_hypothesis(listed: list[str], num_systems: int) -> None:
    found = vote([[Ballot(word, 1.0) for word in listed]] * num_systems, ALPHA, NULL)
    assert [winner.key for winner in found] == listed
    assert all(winner.score == 1.0 for winner in found)


@given(words, ballots, st.data())
def test_two_that_agree_win_against_one_in_any_order(listed: list[str], other: list[Ballot], data: st.DataObject) -> None:
    sure = st.lists(confidences, min_size=len(listed), max_size=len(listed))
    pair = [[Ballot(*ballot) for ballot in zip(listed, data.draw(sure), strict=True)] for _ in range(2)]
    for systems in permutations([*pair, other]):
        assert [winner.key for winner in vote(systems, ALPHA, NULL)] == listed


@given(st.lists(ballots, min_size=1, max_size=4))
def test_winners_are_said_by_those_they_name_and_stand_in_their_order(systems: list[list[Ballot]]) -> None:
    last = [-1] * len(systems)
    for winner in vote(systems, ALPHA, NULL):
        assert winner.said_by
        for system, position in winner.said_by:
            assert systems[system][position].key == winner.key
            assert position > last[system]
            last[system] = position


@given(st.lists(words, min_size=1, max_size=4))
def test_the_network_holds_every_hypothesis_once_and_in_order(hypotheses: list[list[str]]) -> None:
    network = build_network(hypotheses)
    for system, hypothesis in enumerate(hypotheses):
        assert [slot[system] for slot in network if slot[system] >= 0] == list(range(len(hypothesis)))
    assert all(max(slot) >= 0 for slot in network)


@settings(max_examples=40)
@given(ballots, ballots, ballots)
def test_the_order_of_systems_does_not_matter_where_nothing_is_equal(
    first: list[Ballot], second: list[Ballot], third: list[Ballot]
) -> None:
    systems = [first, second, third]
    texts = [[ballot.key for ballot in system] for system in systems]
    assume(len({sum(Levenshtein.distance(mine, other) for other in texts) for mine in texts}) == 3)
    sure = [NULL, *(ballot.confidence for system in systems for ballot in system)]
    assume(len(set(sure)) == len(sure))
    outcomes = {winners(list(order), alpha=0.76) for order in permutations(systems)}
    assert len(outcomes) == 1


@given(words, words)
def test_alignment_to_one_hypothesis_is_the_cheapest_there_is(left: list[str], right: list[str]) -> None:
    weights = (INSERTION, INSERTION, SUBSTITUTION)
    steps = align([[key] for key in left], right)
    slots, cost = iter(left), 0
    for is_slot, position in steps:
        key = next(slots) if is_slot else None
        word = right[position] if position >= 0 else None
        cost += 0 if key == word else SUBSTITUTION if key and word else INSERTION
    assert cost == Levenshtein.distance(left, right, weights=weights)
