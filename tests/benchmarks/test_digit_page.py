"""The digits page holds the figures, the curves and the sounds that the experiment wrote, and needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.digits.judging import score
from benchmarks.digits.page import ROWS, heard_strings, loss_plots, picture, write_page


@pytest.fixture
def out(tmp_path: Path) -> Path:
    texts = ["one", "two three", "four five six"]
    judged = {
        name: score(heard, texts).to_json()
        for name, heard in (("real", texts), ("codec", texts), ("spoken", ["one", "two", "four five six"]))
    }
    results = {
        "parameters": 4_321_000,
        "asr_test": {
            "all": {"wer": 0.0119, "words": 1234, "exact": 0.97},
            "new_orders": {"wer": 0.0123, "words": 1154, "exact": 0.96},
        },
        "tts_test": judged,
        "wall_s": 3000.0,
        "cpu_s": 5000.0,
        "costs": [{"phase": "codec <1>", "wall_s": 100.0, "cpu_s": 90.0, "is_finished": False}],
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = [
        {"stage": stage, "step": step, "loss": 3.0 / step, "loss_text": 1.0 / step, "lr": 1.0}
        for stage in ("align", "speak")
        for step in (1, 2, 3)
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for place, name in enumerate(ROWS):
        folder = tmp_path / "audio" / "test" / name
        folder.mkdir(parents=True)
        for number, text in enumerate(texts):
            tone = np.sin(np.arange(8000) * 0.1 * (1 + place)).astype(np.float32) * 0.5
            soundfile.write(folder / f"{number:03d}_{text.replace(' ', '_')}.wav", tone, 16000, subtype="PCM_16")
    return tmp_path


def test_the_page_shows_what_was_measured(out: Path) -> None:
    page = write_page(out).read_text(encoding="utf-8")
    assert "<b>1.23\u00a0%</b><span>words heard wrong" in page
    assert "3 distinct texts" in page
    assert "83.3\u00a0%" in page
    assert "codec &lt;1&gt;, cut off" in page
    assert "<script" not in page
    assert page.count("<audio") == page.count('<img class="mel"') == 3 * len(ROWS)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    # The longest string comes first.
    assert page.index("<h3>four five six</h3>") < page.index("<h3>two three</h3>") < page.index("<h3>one</h3>")


def test_sounds_in_the_page_are_those_of_the_experiment(out: Path) -> None:
    page = write_page(out).read_text(encoding="utf-8")
    sounds = re.findall(r"data:audio/flac;base64,([A-Za-z0-9+/=]+)", page)
    first, _ = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])), dtype="int16")
    wav, _ = soundfile.read(out / "audio" / "test" / "real" / "002_four_five_six.wav", dtype="int16")
    np.testing.assert_array_equal(first, wav)


def test_curves_are_by_stage_and_kind_and_rates_are_none() -> None:
    rows = [
        {"stage": "align", "step": 1, "loss": 2.0, "loss_text": 2.0, "lr": 0.1},
        {"stage": "speak", "step": 1, "loss": float("nan"), "loss_audio_code": 1.0},
    ]
    plots = loss_plots(rows)
    assert [(stage, [kind for kind, _ in kinds]) for stage, kinds in plots] == [
        ("align", ["all", "text"]),
        ("speak", ["audio_code"]),
    ]


def test_an_empty_answer_has_a_blank_picture(out: Path) -> None:
    soundfile.write(out / "audio" / "test" / "spoken" / "000_one.wav", np.zeros(0, np.float32), 16000, subtype="PCM_16")
    assert heard_strings(out / "audio" / "test")[-1]["ways"][-1]["length_s"] == 0.0
    assert picture(np.zeros(0, np.float32)) == picture(np.zeros(160, np.float32))
    assert "width:0.0%" in write_page(out).read_text(encoding="utf-8")
