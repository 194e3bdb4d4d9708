from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.copies.groups import CopyPair, decide


def decided(pairs, length, rank):
    return {clip: (found.group, found.kept) for clip, found in decide(pairs, length.__getitem__, rank.__getitem__).items()}


def test_the_best_of_whole_copies_stays():
    pairs = [CopyPair(3, 5, True, True), CopyPair(5, 9, True, True)]
    assert decided(pairs, {3: 4.0, 5: 4.0, 9: 4.0}, {3: (2,), 5: (3,), 9: (1,)}) == {3: (3, 9), 5: (3, 9), 9: (3, None)}


def test_an_excerpt_goes_and_what_it_is_cut_from_stays_however_good_it_is():
    pairs = [CopyPair(1, 2, True, False)]  # 1 lies in 2
    assert decided(pairs, {1: 3.0, 2: 9.0}, {1: (0,), 2: (1,)}) == {1: (1, 2), 2: (1, None)}


def test_a_shared_jingle_makes_nobody_a_copy():
    assert decided([CopyPair(1, 2, False, False)], {1: 9.0, 2: 9.0}, {1: (0,), 2: (1,)}) == {}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans()), max_size=30),
    st.lists(st.integers(1, 4), min_size=10, max_size=10),
    st.permutations(range(10)),
)
def test_each_group_keeps_one_and_who_goes_is_covered_by_who_stays(rows, lengths, ranks):
    pairs = [CopyPair(min(a, b), max(a, b), one, two) for a, b, one, two in rows if a != b]
    found = decide(pairs, lambda clip: float(lengths[clip]), lambda clip: (ranks[clip],))
    kept = {clip for clip, decision in found.items() if decision.kept is None}
    assert {decision.group for decision in found.values()} == {found[clip].group for clip in kept}
    for decision in found.values():
        assert decision.group == min(other for other in found if found[other].group == decision.group)
        if decision.kept is not None:
            assert decision.kept in kept
            assert found[decision.kept].group == decision.group
