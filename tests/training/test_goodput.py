from __future__ import annotations

import pytest

from training.goodput import Part, WallTime, goodput_line


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(clock: Clock, wall: WallTime, *parts: tuple[Part, float]) -> None:
    for part, seconds in parts:
        clock.at += seconds
        assert wall.spend(part) == pytest.approx(seconds)


def test_every_moment_is_in_one_part(clock: Clock) -> None:
    wall = WallTime(clock)
    spend(clock, wall, (Part.START_UP, 5), (Part.DATA_WAIT, 1), (Part.STEPS, 8), (Part.CHECKPOINT, 2), (Part.STEPS, 4))
    assert sum(wall.seconds.values()) == pytest.approx(clock.at - 100)
    assert wall.goodput == pytest.approx(12 / 20)


def test_steps_that_are_rolled_back_moved_nothing(clock: Clock) -> None:
    wall = WallTime(clock)
    spend(clock, wall, (Part.STEPS, 10))
    at_checkpoint = wall.state_dict()
    spend(clock, wall, (Part.STEPS, 6), (Part.DATA_WAIT, 1), (Part.SPIKES, 3))
    wall.roll_back(at_checkpoint)
    assert (wall.seconds[Part.STEPS], wall.seconds[Part.SPIKES]) == (10, 9)
    assert sum(wall.seconds.values()) == 20


def test_a_run_that_goes_on_counts_what_it_does_again(clock: Clock) -> None:
    first, second = WallTime(clock), WallTime(clock)
    spend(clock, first, (Part.START_UP, 2), (Part.STEPS, 10))
    second.spend(Part.STEPS)
    second.seconds[Part.STEPS] = 0.0
    second.go_on(first.state_dict(), [{"wall_s": 3.0, "checkpoint_stall_s": 0.5}, {"wall_s": 2.5}, {"measured": ["asr"]}])
    spend(clock, second, (Part.START_UP, 4), (Part.STEPS, 8))
    assert second.state_dict() == {
        "steps": 18, "start_up": 6, "data_wait": 0, "checkpoint": 0, "evaluation": 0, "spikes": 0, "lost": 6,
    }  # fmt: skip
    assert goodput_line(second.state_dict()) == "goodput 60% of 30 s in steps that count; start up 20%, lost 20%"
