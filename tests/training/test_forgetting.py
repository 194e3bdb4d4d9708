from __future__ import annotations

import math
from typing import Any

import pytest

from training.forgetting import TextGuard, alarms


def measured(stage: str, step: int, **losses: float) -> dict[str, Any]:
    return {"stage": stage, "step": step, "measured": ["text"], **{f"{split}_text_loss": loss for split, loss in losses.items()}}


def test_each_split_is_held_against_its_own_lowest() -> None:
    guard = TextGuard(0.1)
    assert guard.watch(measured("text", 5, test=2.0, other=4.0)) == ({}, [])
    columns, found = guard.watch(measured("text", 9, test=1.0, other=4.3))
    assert columns == {"test_text_rise": pytest.approx(-0.5), "other_text_rise": pytest.approx(0.075)}
    assert found == []
    columns, (forgot,) = guard.watch(measured("tts", 3, test=1.2, other=4.0))
    assert (forgot.split, forgot.stage, forgot.step) == ("test", "tts", 3)
    assert (forgot.lowest, forgot.lowest_stage) == (1.0, "text")
    assert columns["test_text_rise"] == forgot.rise == pytest.approx(0.2)
    assert "20% above its lowest so far (1.000, stage 'text')" in forgot.line()


def test_rows_of_before_count_and_steps_do_not() -> None:
    rows = [measured("text", 5, test=1.0), {"stage": "tts", "step": 1, "loss": 0.1, "test_text_loss": 0.1}]
    _, (forgot,) = TextGuard(0.1, rows).watch(measured("tts", 3, test=1.2))
    assert forgot.lowest == 1.0


def test_a_higher_loss_does_not_become_what_later_ones_are_held_against() -> None:
    """Slow forgetting, each time by less than what is allowed, is found all the same."""
    rows = [measured("text", 1, test=1.0), *(measured("tts", step, test=1.0 + 0.06 * step) for step in (1, 2, 3))]
    assert [forgot.step for forgot in alarms(0.1, rows)] == [2, 3]


def test_a_loss_that_is_no_number_is_forgotten_and_never_the_lowest() -> None:
    guard = TextGuard(0.1)
    guard.watch(measured("text", 1, test=math.nan))
    guard.watch(measured("text", 2, test=1.0))
    assert [forgot.step for forgot in guard.watch(measured("tts", 3, test=math.nan))[1]] == [3]
    assert [forgot.lowest for forgot in guard.watch(measured("tts", 4, test=9.0))[1]] == [1.0]
