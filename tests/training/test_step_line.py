from __future__ import annotations

from manifests.console import fitting
from training.step_line import SMOOTHED_STEPS, StepLine

ROW = {
    "loss": 2.5,
    "loss_text": 1.25,
    "loss_audio_code": 4.5,
    "loss_tts_pad": 0.125,
    "loss_special": 0.5,
    "tokens": 4000,
    "wall_s": 0.5,
    "data_wait_s": 0.001,
    "mfu": 0.31,
}


def test_the_most_important_figures_come_first() -> None:
    cells = StepLine().cells(ROW)
    assert cells == [
        "loss 2.500",
        "text 1.250",
        "code 4.500",
        "8,000 tokens/s",
        "MFU 31.0%",
        "data wait 0.2%",
        "tts pad 0.125",
        "special 0.500",
    ]
    # What a terminal of 80 columns shows.
    assert fitting(cells, 80) == "loss 2.500  text 1.250  code 4.500  8,000 tokens/s  MFU 31.0%  data wait 0.2%"


def test_speed_is_that_of_the_last_steps_together_and_losses_are_the_last() -> None:
    line = StepLine()
    line.cells({**ROW, "wall_s": 100.0})
    for _ in range(SMOOTHED_STEPS - 1):
        line.cells(ROW)
    cells = line.cells({**ROW, "loss": 2.0, "wall_s": 1.5, "mfu": 0.0, "data_wait_s": 1.0})
    num, wall_s = SMOOTHED_STEPS, 0.5 * (SMOOTHED_STEPS - 1) + 1.5  # the slow first one is out of sight
    assert cells[0] == "loss 2.000"
    assert f"{num * 4000 / wall_s:,.0f} tokens/s" in cells
    assert f"MFU {0.31 * 0.5 * (num - 1) / wall_s:.1%}" in cells
    assert f"data wait {(1.0 + 0.001 * (num - 1)) / wall_s:.1%}" in cells


def test_a_stage_of_labels_has_the_kinds_that_it_has() -> None:
    cells = StepLine().cells({name: value for name, value in ROW.items() if name != "loss_audio_code"} | {"loss_gender": 0.7})
    assert cells[1:3] == ["text 1.250", "8,000 tokens/s"]
    assert cells[-1] == "gender 0.700"
