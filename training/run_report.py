"""The report of a run: one HTML page of its curves to look at, and the figures behind it for machines.

The page needs nothing else: style and drawings are inline. It may be made while the run is under way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from manifests.console import counted, number, share
from manifests.errors import RequestError
from manifests.figures import curve
from manifests.pages import environment, readable_span
from manifests.recipes import decode_recipe
from manifests.spikes import SPIKES, read_spikes
from training.journal import METRICS, read_rows
from training.line_plots import Series, Stretch, lines_svg
from training.recipe import TrainingRecipe
from training.run_figures import run_figures
from training.run_folder import RECIPE, SUMMARY, RunFolder
from training.step_line import SHORT

PAGE = "report.html"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunReport:
    """What was written, and what it says."""

    page: str
    figures: dict[str, Any]

    def lines(self) -> list[str]:
        """For people."""
        whole = self.figures["all"]
        lines = [
            f"{stage['stage']}: {stage['steps']:,} of {stage['planned_steps']:,} steps, loss {stage['first_loss']:.3f} to "
            f"{stage['last_loss']:.3f}, {number(stage['tokens_per_s'])} tokens/s, MFU {share(stage['mfu'])}"
            for stage in self.figures["stages"]
        ]
        lines += [forgot["line"] for forgot in self.figures["forgotten"]]
        if spikes := self.figures["spikes"]:
            lines.append(f"{counted(len(spikes), 'step')} rang; documents to blame are in {SPIKES}")
        return [*lines, f"{readable_span(whole['wall_s'])} of steps in all; open {self.page}"]


@dataclass(frozen=True)
class Chart:
    """One drawing with its curves' names; ``svg`` is safe to stand in a page."""

    title: str
    names: tuple[str, ...]
    svg: str
    note: str = ""


def write_run_report(run_path: str, out: str | None = None) -> RunReport:
    """Write the page of a run, ``report.html`` in its folder unless told otherwise.

    Raises RequestError where there is no run, or one that has done no step yet.
    """
    folder = RunFolder(run_path)
    try:
        with open(os.path.join(run_path, RECIPE), encoding="utf-8") as file:
            recipe = decode_recipe(TrainingRecipe, file.read(), os.path.join(run_path, RECIPE))
    except OSError as error:
        raise RequestError(f"no run at {run_path!r} ({RECIPE}: {error.strerror}); give the folder of one") from error
    rows = list(read_rows(run_path))
    if not any("measured" not in row for row in rows):
        raise RequestError(f"run {run_path!r} has no step in its {METRICS} yet; make the report once it trains")
    spikes_path = os.path.join(run_path, SPIKES)
    spikes = list(read_spikes(spikes_path)) if os.path.exists(spikes_path) else []
    figures = run_figures(run_path, recipe, folder.read(SUMMARY), rows, spikes)
    page = out or os.path.join(run_path, PAGE)
    marks = [spike.global_step for spike in spikes]
    with open(page, "w", encoding="utf-8") as file:
        file.write(
            environment("training")
            .get_template("run.html.j2")
            .render(
                f=figures,
                losses=loss_charts(rows),
                held_out=held_out_charts(rows),
                speed=speed_charts(rows),
                optimizer=optimizer_charts(rows, marks),
            )
        )
    return RunReport(page, figures)


def loss_charts(rows: Sequence[Row]) -> list[Chart]:
    """A chart a stage: the loss and what it is of each kind, over the stage's own steps."""
    charts = []
    for stage in stretches(rows):
        own = [row for row in rows if row["stage"] == stage.name and "measured" not in row]
        names = ["loss", *dict.fromkeys(name for row in own for name in row if name.startswith("loss_"))]
        charts.append(
            _chart(stage.name, own, {name: _short(name) for name in names if len(names) > 2 or name == "loss"}, x="step")
        )
    return charts


def held_out_charts(rows: Sequence[Row]) -> list[Chart]:
    """Figures of all splits over the steps of the run; those that were never measured have no chart."""
    measured = [row for row in rows if "measured" in row]
    told = (
        ("loss of plain text", "_text_loss", "", "rises where the model forgets how to write"),
        ("words written wrong (WER)", "_asr_wer", "", "of what is heard, decoded freely"),
        ("characters written wrong (CER)", "_asr_cer", "", "of languages without agreed words"),
        (
            "words spoken wrong (WER)",
            "_tts_wer",
            "_tts_real_wer",
            "as read back off the codes; real: off the documents' own codes",
        ),
        ("characters spoken wrong (CER)", "_tts_cer", "_tts_real_cer", "of languages without agreed words"),
        ("length of speech", "_tts_length_ratio", "_tts_finished", "codes by real ones, and the share that came to its own end"),
    )
    charts = []
    for title, ending, other, note in told:
        names = {
            name: name.removesuffix(end).removesuffix("_") + label
            for end, label in ((ending, ""), (other, " real" if other.endswith("er") else " finished"))
            for name in dict.fromkeys(name for row in measured for name in row)
            if end and name.endswith(end)
        }
        charts.append(_chart(title, measured, names, stretches(rows), note=note))
    return [chart for chart in charts if chart.svg]


def speed_charts(rows: Sequence[Row]) -> list[Chart]:
    """Speed and how busy the devices are, over the steps of the run."""
    steps = [row for row in rows if "measured" not in row]
    percent = [{**row, **{name: 100 * row[name] for name in ("mfu", "hfu") if name in row}} for row in steps]
    waits = [{**row, "wait": 100 * row["data_wait_s"] / row["wall_s"]} for row in steps if "data_wait_s" in row and row["wall_s"]]
    charts = [
        _chart("tokens a second", steps, {"tokens_per_s": "tokens/s"}, stretches(rows)),
        _chart(
            "MFU, percent of the peak",
            percent,
            {"mfu": "MFU", "hfu": "HFU"},
            stretches(rows),
            note="HFU counts padding and what is computed again",
        ),
        _chart("waiting for data, percent of a step", waits, {"wait": "data wait"}, stretches(rows)),
    ]
    return [chart for chart in charts if chart.svg]


def optimizer_charts(rows: Sequence[Row], marks: Sequence[float]) -> list[Chart]:
    """Rates and norms of gradients by group; ``marks``: steps at which the watch rang."""
    steps = [row for row in rows if "measured" not in row]
    names = list(dict.fromkeys(name for row in steps for name in row))
    return [
        _chart(
            "learning rate", steps, {name: name.removeprefix("lr_") for name in names if name.startswith("lr_")}, stretches(rows)
        ),
        _chart(
            "gradient norm before clipping",
            steps,
            {
                name: "all" if name == "grad_norm" else name.removeprefix("grad_norm_")
                for name in names
                if name.startswith("grad_norm")
            },
            stretches(rows),
            marks,
            note="upright lines: steps that rang" if marks else "",
        ),
    ]


def stretches(rows: Sequence[Row]) -> list[Stretch]:
    """First and last step of each stage within the run, as far as it has come."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        steps.setdefault(row["stage"], []).append(row["global_step"])
    return [Stretch(stage, own[0], own[-1]) for stage, own in steps.items()]


def _chart(
    title: str,
    rows: Sequence[Row],
    names: Mapping[str, str],
    stages: Sequence[Stretch] = (),
    marks: Sequence[float] = (),
    note: str = "",
    x: str = "global_step",
) -> Chart:
    """Columns of rows as curves, with gaps where steps lack them; figures on held-out documents go on to where they are next."""
    from markupsafe import Markup

    def pieces(name: str) -> list[list[tuple[float, float]]]:
        kept = [row for row in rows if "measured" not in row or row.get(name) is not None]
        found = groupby(kept, lambda row: row.get(name) is not None)
        return [curve([(row[x], row[name]) for row in piece]) for is_there, piece in found if is_there]

    series = [Series(told, pieces(name)) for name, told in names.items()]
    return Chart(title, tuple(each.name for each in series), Markup(lines_svg(title, series, stages, marks)), note)


def _short(name: str) -> str:
    kind = name.removeprefix("loss_")
    return "all" if name == "loss" else SHORT.get(kind, kind)
