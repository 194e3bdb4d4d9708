"""Limits are fitted by one rule, and never on the group that they are scored on."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.limits import best_limits, cross_validated, folds, middle, quantile_borders

GRID = {"limit": tuple(range(11))}


def calls_at(values: list[float]) -> np.ndarray:
    return np.array(values) >= np.arange(11.0)[:, None]


def test_the_middle_of_what_tells_both_apart() -> None:
    values, is_positive = [0.0, 1.0, 2.0, 8.0, 9.0], np.array([False, False, False, True, True])
    assert best_limits(calls_at(values), is_positive) == (5,)  # 3 to 8 tell them apart; of the two in the middle, the lower


def test_false_calls_come_first() -> None:
    values = [3.0] * 198 + [6.0, 9.0] + [5.0, 7.0, 10.0]
    is_positive = np.arange(203) >= 200
    # One of 200 may be called: 9.0 is, 6.0 is not, and so 5.0 is lost.
    assert best_limits(calls_at(values), is_positive) == (7,)


def test_a_share_of_what_is_called() -> None:
    values, is_positive = [2.0, 4.0, 4.0, 9.0], np.array([False, True, True, True])
    assert best_limits(calls_at(values), is_positive, "called") == (3,)


def test_the_middle_lies_inside_and_not_at_an_end_of_a_long_strip() -> None:
    strip = np.zeros((9, 20), bool)
    strip[3:5, 4:15] = True
    row, column = middle(strip)
    assert (strip[row, column], column) == (True, 9)


def test_nothing_is_learned_from_the_group_that_is_scored() -> None:
    groups = [f"speaker {number // 4}" for number in range(80)]
    is_positive = np.arange(80) % 2 == 1
    seen: list[np.ndarray] = []

    def call(is_fitted: np.ndarray) -> np.ndarray:
        seen.append(is_fitted)
        return calls_at((is_positive * 10.0).tolist())

    found = cross_validated(call, GRID, is_positive, groups)
    assert found.called.tolist() == is_positive.tolist()
    assert (len(found.by_fold), found.on_all) == (5, {"limit": 5.0})
    assert seen[-1].all()
    held = ~np.array(seen[:-1])
    assert (held.sum(axis=0) == 1).all()
    for fold in held:
        inside = {group for group, is_held in zip(groups, fold, strict=True) if is_held}
        assert not inside & {group for group, is_held in zip(groups, fold, strict=True) if not is_held}


def test_an_odd_speaker_does_not_move_the_limit_that_judges_it() -> None:
    groups = [f"speaker {number // 2}" for number in range(40)]
    is_positive = np.arange(40) % 2 == 1
    values = np.where(is_positive, 8.0, 2.0)
    values[0] = 7.0  # of speaker 0, and not positive
    found = cross_validated(lambda _: calls_at(values.tolist()), GRID, is_positive, groups)
    own = next(number for number, held in enumerate(folds(is_positive, groups)) if held[0])
    assert [limits["limit"] for limits in found.by_fold] == [5.0 if number == own else 8.0 for number in range(5)]
    assert found.called[0]
    assert "(!)" in found.rows({"limit": 4.0})[0]
    assert "(!)" not in found.rows({"limit": 8.0})[0]


def test_thirds_hold_where_groups_are_alike() -> None:
    values = np.random.default_rng(0).uniform(0, 90, 3000)
    by_fold, on_all, place = quantile_borders(values, (1 / 3, 2 / 3), [f"speaker {i % 50}" for i in range(3000)])
    assert on_all == (30.0, 60.0)
    assert all(abs(low - 30) <= 2 and abs(high - 60) <= 2 for low, high in by_fold)
    assert np.allclose(np.bincount(place) / 3000, 1 / 3, atol=0.03)
