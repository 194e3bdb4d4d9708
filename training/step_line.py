"""What a person sees of each step: loss by kind, speed, how busy the devices are, and whether data keeps them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

SMOOTHED_STEPS = 20  # that speed and waiting are means over; losses are the last step's
SHORT = {"audio_code": "code", "tts_pad": "tts pad", "audio_pad": "audio pad"}  # other kinds go by their own names
FIRST = ("loss_text", "loss_audio_code")  # of the kinds, in front of the speed


class StepLine:
    """Cells of a stage's line, the most important first: a narrow terminal leaves the last ones out."""

    def __init__(self) -> None:
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=SMOOTHED_STEPS)

    def cells(self, row: Mapping[str, Any]) -> list[str]:
        """Of the step whose row of metrics this is, and some before it."""
        self._rows.append(row)
        wall_s, waited_s, tokens = (sum(step[name] for step in self._rows) for name in ("wall_s", "data_wait_s", "tokens"))
        busy_s = sum(step["mfu"] * step["wall_s"] for step in self._rows)
        kinds = [name for name in row if name.startswith("loss_")]
        losses = {name: f"{SHORT.get(kind := name.removeprefix('loss_'), kind)} {row[name]:.3f}" for name in kinds}
        first = [losses[name] for name in FIRST if name in losses]
        return [
            f"loss {row['loss']:.3f}",
            *first,
            f"{tokens / wall_s:,.0f} tokens/s",
            f"MFU {busy_s / wall_s:.1%}",
            f"data wait {waited_s / wall_s:.1%}",
            *(losses[name] for name in kinds if name not in FIRST),
        ]
