"""The plots of a dataset card: small PNGs, drawn without a display, the same bytes for the same figures."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manifests.console import number
from manifests.export.card_facts import LENGTH_EDGES_S, CardFacts, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, DPI = 6.4, 120
MOST_BARS = 12
TONE, DROPPED, INK = "#2f6f9f", "#c0713a", "#333333"
UNKNOWN = "not known"


def plots(facts: CardFacts) -> dict[str, bytes]:
    """File name -> PNG, of those that the facts have something for."""
    made = {"hours-by-language.png": _languages(facts), "lengths.png": _lengths(facts), "funnel.png": _funnel(facts)}
    return {name: _png(figure) for name, figure in made.items() if figure is not None}


def _languages(facts: CardFacts) -> Figure | None:
    groups = facts.groups["language"]
    if not facts.hours:
        return None
    shown, others = list(groups[:MOST_BARS]), groups[MOST_BARS:]
    if others:
        shown.append(Group(f"{len(others)} others", 0, sum(group.hours for group in others)))
    return _bars("Hours by language", [(group.value or UNKNOWN, group.hours, TONE) for group in shown])


def _funnel(facts: CardFacts) -> Figure | None:
    if not facts.funnel:
        return None
    rows = [(row["reason"] or row["step"], row["hours"], DROPPED if row["step"] == "dropped" else TONE) for row in facts.funnel]
    return _bars("From clips to documents, in hours (brown: left out)", rows)


def _lengths(facts: CardFacts) -> Figure | None:
    if not sum(facts.lengths):
        return None
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(LENGTH_EDGES_S)]
    figure, axes = _figure(2.6)
    axes.bar([*names, f"over {LENGTH_EDGES_S[-1]:g}"], facts.lengths, color=TONE, width=0.9)
    axes.set_title("Rows by length (s)", fontsize=10, color=INK, loc="left")
    axes.tick_params(axis="x", labelrotation=45, labelsize=8)
    axes.tick_params(axis="y", labelsize=8)
    return figure


def _bars(title: str, rows: Sequence[tuple[str, float, str]]) -> Figure:
    """Horizontal bars from the top, each with its figure."""
    figure, axes = _figure(0.7 + 0.28 * len(rows))
    places = range(len(rows))
    values = [value for _, value, _ in rows]
    axes.barh(places, values, color=[tone for _, _, tone in rows], height=0.7)
    axes.set_yticks(places, [name if len(name) <= 28 else f"{name[:27]}…" for name, _, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, (max(values) or 1.0) * 1.15)
    axes.tick_params(axis="x", labelsize=8)
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f" {number(value)}", va="center", fontsize=8, color=INK)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    return figure


def _figure(height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
