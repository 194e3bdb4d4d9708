"""Scores of groups against their definitions, item by item and pair by pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.linking_scores import by_speaker, item_scores, pair_scores

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(5, 8)), min_size=1, max_size=25)


@given(LABELS)
def test_they_are_what_their_definitions_say(labels):
    truth, found = (np.array(column) for column in zip(*labels, strict=True))
    pairs = list(combinations(range(len(truth)), 2))
    right = sum(truth[i] == truth[j] and found[i] == found[j] for i, j in pairs)
    linked, true = (sum(one[i] == one[j] for i, j in pairs) for one in (found, truth))
    precision, recall, _ = pair_scores(by_speaker(truth, found))
    assert precision == pytest.approx(right / linked if linked else 1.0)
    assert recall == pytest.approx(right / true if true else 1.0)
    both = [
        [np.mean(one[other == other[i]] == one[i]) for i in range(len(truth))] for one, other in ((truth, found), (found, truth))
    ]
    assert item_scores(by_speaker(truth, found))[:2] == pytest.approx([np.mean(both[0]), np.mean(both[1])])


def test_right_groups_score_one_under_any_names():
    rows = by_speaker(np.array([1, 1, 2, 3, 3]), np.array([9, 9, 4, 6, 6]))
    assert pair_scores(rows) == item_scores(rows) == (1.0, 1.0, 1.0)


def test_one_group_for_all_has_all_the_recall_and_little_precision():
    rows = by_speaker(np.repeat(np.arange(10), 10), np.zeros(100, int))
    assert pair_scores(rows)[:2] == pytest.approx((450 / 4950, 1.0))
    assert item_scores(rows)[:2] == pytest.approx((0.1, 1.0))
