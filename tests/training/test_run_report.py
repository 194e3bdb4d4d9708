"""The page of a run says what its folder says, needs nothing else, and is there while the run is under way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from manifests.errors import RequestError
from manifests.recipes import resolved
from manifests.spikes import BlamedDocument, Spike, append_spike
from tests.html_page import Page
from training.cli import app
from training.recipe import TrainingRecipe
from training.run_report import held_out_charts, loss_charts, optimizer_charts, write_run_report


def step(stage: str, number: int, global_step: int, **columns: float) -> dict[str, Any]:
    clock = {"wall_s": 0.5, "data_wait_s": 0.005, "tokens_per_s": 2000.0, "checkpoint_stall_s": 0.0, "flops": 1e9}
    busy = {"mfu": 0.30, "hfu": 0.36}
    rates = {"lr": 1e-3, "lr_adaptor": 1e-3, "grad_norm": 1.5, "grad_norm_adaptor": 1.5}
    row = {"stage": stage, "step": number, "loss": 3.0 - number / 10, "tokens": 1000, **clock, **busy, **rates, **columns}
    return {**row, "global_step": global_step}


ROWS = [
    *(step("decoder_text", n, n, loss_text=3.0) for n in range(1, 6)),
    {"stage": "decoder_text", "step": 5, "global_step": 5, "measured": ["text"], "test_text_loss": 2.0},
    # This one took four times as long, and was a quarter as busy.
    # What lies behind the last step of decoder_text stands in the first row of tts.
    *(
        step("tts", n, 5 + n, loss_text=2.5, loss_audio_code=5.5, wall_s=2.0, mfu=0.075, checkpoint_stall_s=stall_s)
        for n, stall_s in ((1, 0.3), (2, 0.0), (3, 0.04))
    ),
    {
        "stage": "tts",
        "step": 3,
        "global_step": 8,
        "measured": ["text", "tts"],
        "test_text_loss": 2.5,
        "test_text_rise": 0.25,
        "test_tts_wer": 0.4,
        "test_tts_real_wer": 0.1,
        "test_tts_cer": None,
        "test_tts_finished": 1.0,
        "test_tts_length_ratio": 1.1,
    },
]
SPIKE = Spike(
    *("tts", 2, 7, "loss", "skip", 9.5, 12.0, 3.0, None, 16),
    documents=[BlamedDocument("d<07>", "train-000000.tar", 9.0, 2.0, 4.0, ["aa"], ["bb"])],
    pack_id="p",
    corpus_id=None,
    clips_fingerprint=None,
)


@pytest.fixture
def run(tmp_path: Path, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., list[dict[str, Any]]]) -> Path:
    """A run under way: two stages of four have steps, one is done."""
    (tmp_path / "run").mkdir()
    stages = [stage for stage in curriculum_of(5) if stage["name"] != "encoder_ctc"]
    stages = sorted(stages, key=lambda stage: ("decoder_text", "tts", "align").index(stage["name"]))
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(resolved(make_recipe(stages))))
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"stage": "tt')
    peak = {"device": "CPU", "flops_per_s": 5e10, "is_measured": True}
    summary = {
        "finished": False,
        "parameters": 9876,
        "peak": peak,
        "stages": [{"name": "decoder_text", "trainable_parameters": 4321, "checkpoint_stall_s": 0.35}],
    }
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    append_spike(str(tmp_path / "run"), SPIKE)
    return tmp_path / "run"


def test_figures_and_page_say_what_the_folder_says(run: Path) -> None:
    report = write_run_report(str(run))
    figures = report.figures
    first, second = figures["stages"]
    assert (first["stage"], first["steps"], first["planned_steps"], first["trainable_parameters"]) == ("decoder_text", 5, 5, 4321)
    assert (second["steps"], second["planned_steps"], second["trainable_parameters"]) == (3, 5, None)
    assert figures["waiting_stages"] == ["align"]
    assert (figures["all"]["tokens"], figures["all"]["wall_s"]) == (8000, 8.5)
    assert figures["all"]["tokens_per_s"] == pytest.approx(8000 / 8.5)
    assert figures["all"]["mfu"] == pytest.approx((0.3 * 2.5 + 0.075 * 6) / 8.5)
    assert figures["all"]["data_wait_share"] == pytest.approx(0.04 / 8.5)
    assert [stage["checkpoint_stall_s"] for stage in (first, second)] == pytest.approx([0.35, 0.04])
    assert figures["all"]["checkpoint_stall_s"] == pytest.approx(0.39)
    (forgot,) = figures["forgotten"]
    assert (forgot["split"], forgot["rise"], forgot["lowest_stage"]) == ("test", pytest.approx(0.25), "decoder_text")
    assert json.loads(json.dumps(figures)) == figures

    html = Path(report.page).read_text(encoding="utf-8")
    assert re.search(r"https?://|url\(", html) is None
    text = Page(html).text
    for said in (
        "Run run",
        "9,876 parameters",
        "still to come: align",
        "0.05 TFLOP/s measured",
        "25% above its lowest so far",
        "3 of 5",
        "loss of plain text",
        "words spoken wrong (WER)",
        "test real",
        "d<07>",
        "upright lines: steps that rang",
    ):
        assert said in text, said
    assert "characters spoken wrong" not in text  # nothing was measured in characters
    # Two losses; text, words spoken, length; three of speed; rates and norms.
    assert html.count("<svg") == 2 + 3 + 3 + 2
    assert any("decoder_text: 5 of 5 steps, loss 2.900 to 2.500, 2,000 tokens/s, MFU 30%" in line for line in report.lines())


def test_curves_are_the_columns(run: Path) -> None:
    losses = loss_charts(ROWS)
    assert [(chart.title, chart.names) for chart in losses] == [("decoder_text", ("all",)), ("tts", ("all", "text", "code"))]
    by_title = {chart.title: chart for chart in held_out_charts(ROWS)}
    assert by_title["words spoken wrong (WER)"].names == ("test", "test real")
    assert by_title["length of speech"].names == ("test", "test finished")
    assert "test, step 8: 0.4<" in by_title["words spoken wrong (WER)"].svg
    assert [
        f"test, step {row['global_step']}: {row['test_text_loss']:.4g}<" in by_title["loss of plain text"].svg
        for row in ROWS
        if "measured" in row
    ] == [True, True]


def test_a_curve_has_a_gap_where_a_stage_does_not_have_it() -> None:
    stages = [step("a", 1, 1, lr_head=1.0), step("b", 1, 2), step("c", 1, 3, lr_head=1.0)]
    rates = optimizer_charts(stages, [])[0]
    assert rates.names == ("adaptor", "head")
    assert (rates.svg.count('curve l0"'), rates.svg.count('curve l1"')) == (1, 2)


def test_the_verb_writes_the_page_where_it_is_told(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    told = CliRunner().invoke(app, ["report", "--run", str(run), "--out", str(page), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout) == {"page": str(page), **write_run_report(str(run)).figures}
    assert page.read_text() == (run / "report.html").read_text()
    shown = CliRunner().invoke(app, ["report", "--run", str(run)], catch_exceptions=False).stdout
    assert f"open {run / 'report.html'}" in shown


def test_what_has_no_curve_is_no_report(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no run at .*recipe\.json"):
        write_run_report(str(tmp_path / "elsewhere"))
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(RequestError, match=r"no step in its metrics\.jsonl yet"):
        write_run_report(str(run))
    assert not (run / "report.html").exists()
