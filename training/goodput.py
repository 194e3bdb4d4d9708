"""Where a run's wall time went, and what share of it moved the model: from the call of the command on, over all resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from manifests.console import duration, share

SHOWN_SHARE = 0.005  # what is less is told by no percent


class Part(StrEnum):
    """What wall time is spent on."""

    STEPS = "steps"  # that were accepted, and are part of what the weights are now
    START_UP = "start_up"
    DATA_WAIT = "data_wait"
    CHECKPOINT = "checkpoint"  # that the loop stood still
    EVALUATION = "evaluation"
    SPIKES = "spikes"  # steps that were skipped or rolled back, and finding out whom to blame
    LOST = "lost"  # steps behind the last checkpoint of a run that was killed, which were done again


class WallTime:
    """Seconds by part. Every moment since the start, or since the checkpoint that it goes on from, is in one of them."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now, self._mark = now, now()
        self.seconds = dict.fromkeys(Part, 0.0)

    def spend(self, part: Part) -> float:
        """All that has passed since the last call went into this; returns how much."""
        now = self._now()
        passed, self._mark = now - self._mark, now
        self.seconds[part] += passed
        return passed

    def go_on(self, held: Mapping[str, float], lost: Iterable[Mapping[str, Any]]) -> None:
        """Behind a checkpoint's ``state_dict``; ``lost``: rows of steps that were done since, and are done again."""
        for part in Part:
            self.seconds[part] += held[part]
        self.seconds[Part.LOST] += sum(row.get("wall_s", 0.0) + row.get("checkpoint_stall_s", 0.0) for row in lost)

    def roll_back(self, held: Mapping[str, float]) -> None:
        """The steps that were accepted since the checkpoint are part of nothing any more."""
        taken_back = self.seconds[Part.STEPS] - held[Part.STEPS]
        self.seconds[Part.STEPS] -= taken_back
        self.seconds[Part.SPIKES] += taken_back

    def state_dict(self) -> dict[str, float]:
        return {str(part): seconds for part, seconds in self.seconds.items()}

    @property
    def goodput(self) -> float:
        """Share of the time in accepted steps."""
        return self.seconds[Part.STEPS] / max(sum(self.seconds.values()), 1e-9)


def goodput_line(wall_s: Mapping[str, float]) -> str:
    """A summary's ``wall_s`` for people."""
    total = max(sum(wall_s.values()), 1e-9)
    shares = {part: seconds / total for part, seconds in wall_s.items()}
    rest = [f"{part.replace('_', ' ')} {share(s)}" for part, s in shares.items() if part != Part.STEPS and s >= SHOWN_SHARE]
    return f"goodput {share(shares[Part.STEPS])} of {duration(total)} in steps that count; {', '.join(rest)}"
