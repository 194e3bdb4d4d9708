"""The page of an audit: one HTML file that needs nothing else, readable on a phone.

Figures come from ``manifests.audit.figures``; where a corpus was listened to, its audio lies in the page. One small
script lets a reader take filters of the funnel away, and write down verdicts; without it the page says the same.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.audio import AudioReader
from manifests.audit.figures import AuditFigures
from manifests.audit.intervals import Share
from manifests.audit.listening import Drawn, ListeningSample, played
from manifests.audit.plots import distribution_svg, what_if_svg
from manifests.audit.verdicts import Heard, Verdict, heard
from manifests.console import counted
from manifests.errors import RequestError
from manifests.pages import environment, readable_span

SHOWN_ROWS = 12  # of a table of hours; the rest is one row more
SHOWN_DRIFTS = 40
WHAT_IF_ROWS = 7  # thresholds of a table: the recipe's and as many around it
MATRIX_SIDE = 12
NOBODY = Share(None, None, None)


@dataclass(frozen=True)
class Listening:
    """The sample as the page shows it: (clip, its audio as an address), and what listeners found, if anybody did."""

    strata: Sequence[str]
    clips: Sequence[tuple[Drawn, str]]
    heard: Sequence[Heard] = ()
    wrong: Share = NOBODY
    num_verdicts: int = 0

    @staticmethod
    def of(sample: ListeningSample, reader: AudioReader, verdicts: Sequence[Verdict] = ()) -> Listening:
        """Raises RequestError where a verdict is on a clip that was not drawn."""
        rows, wrong, unknown = heard(sample, verdicts)
        if unknown:
            raise RequestError(
                f"verdict on clip {unknown[0]!r}: it is not in this sample; give the size, snapshot and recipe of the page that it is from"
            )
        clips = [(drawn, played(reader, drawn)) for drawn in sample.drawn()]
        return Listening(sample.strata, clips, rows, wrong, len(verdicts))


def render_audit(figures: AuditFigures, listening: Listening | None = None) -> str:
    """The page. Everything that came from outside is escaped."""
    from markupsafe import Markup

    f = figures
    funnel, all_h = f.funnel, f.totals["clip_h"]
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            f=f,
            written_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")[:16].replace("T", " "),
            findings=findings(f),
            tables=[group for group in f.groups if len(group["columns"]) == 1],
            matrices=[matrix(group) for group in f.groups if len(group["columns"]) == 2],
            distributions=[(facts, Markup(svg)) for facts in f.distributions if (svg := distribution_svg(facts))],
            what_ifs=[(facts, Markup(what_if_svg(facts, funnel["all_h"])), what_if_rows(facts)) for facts in funnel["what_ifs"]]
            if funnel
            else [],
            unlike=f.drift["rows"][:SHOWN_DRIFTS],
            num_drifts=sum(row["is_drift"] for row in f.drift["rows"]),
            listening=listening,
            all_h=all_h,
            shown_rows=SHOWN_ROWS,
            place=place,
        )
    )


def findings(f: AuditFigures) -> list[tuple[str, str]]:
    """(where on the page, one line) of what deserves a look, worst first."""
    found = [
        ("rules", f"{counted(rule['num_clips'], 'clip')} ({_h(rule['clip_h'])}): {rule['title']}")
        for rule in f.rules
        if rule["num_clips"]
    ]
    if f.licence_disagreements and f.licence_disagreements["num_recordings"]:
        num = f.licence_disagreements["num_recordings"]
        found.append(("rights", f"{counted(num, 'recording')} came under licences that disagree"))
    if f.speakers and f.speakers["num_over_cap"]:
        over = f.speakers
        speakers = counted(over["num_over_cap"], "speaker")
        found.append(
            ("speakers", f"{speakers} with more than {over['cap_h']:g} h; a cap would leave out {_h(over['beyond_cap_h'])}")
        )
    for layer in f.layers:
        for status in ("error", "not_made"):
            if (sums := layer["statuses"].get(status)) and sums["num_clips"]:
                what = "failed on" if status == "error" else "was not made for"
                found.append(
                    ("layers", f"layer {layer['layer']} {what} {counted(sums['num_clips'], 'clip')} ({_h(sums['clip_h'])})")
                )
    if drifts := sum(row["is_drift"] for row in f.drift["rows"]):
        found.append(("drift", f"{counted(drifts, 'distribution')} drifted between sources, times, models or runs"))
    return found


def matrix(group: Mapping[str, Any]) -> dict[str, Any]:
    """Hours by two columns as a table: rows and columns with most hours first, MATRIX_SIDE of each, the others summed."""
    sums: dict[tuple[str | None, str | None], float] = {}
    for row in group["rows"]:
        left, top = (None if value is None else str(value) for value in row["key"])
        sums[left, top] = sums.get((left, top), 0.0) + row["clip_h"]
    sides = []
    for side in (0, 1):
        hours: dict[str | None, float] = {}
        for key, value in sums.items():
            hours[key[side]] = hours.get(key[side], 0.0) + value
        sides.append(sorted(hours, key=lambda name: (-hours[name], str(name)))[:MATRIX_SIDE])
    lefts, tops = sides
    cells = [[sums.get((left, top), 0.0) for top in tops] for left in lefts]
    shown = sum(map(sum, cells))
    return {
        "name": group["name"],
        "columns": group["columns"],
        "lefts": lefts,
        "tops": tops,
        "cells": cells,
        "most": max(map(max, cells), default=0.0) if cells else 0.0,
        "other_h": sum(sums.values()) - shown + (group["rest"]["clip_h"] if group["rest"] else 0.0),
    }


def what_if_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Thresholds around that of the recipe, with what would be kept and how much more or less than now that is."""
    thresholds = facts["thresholds"]
    at = min(range(len(thresholds)), key=lambda place: abs(thresholds[place] - facts["at"]))
    step = max(1, len(thresholds) // 16)
    places = [at + step * (place - WHAT_IF_ROWS // 2) for place in range(WHAT_IF_ROWS)]
    now = facts["clip_h_kept"][at]
    return [
        {
            "threshold": thresholds[place],
            "clip_h": facts["clip_h_kept"][place],
            "num_clips": facts["num_clips_kept"][place],
            "change_h": facts["clip_h_kept"][place] - now,
            "is_now": place == at,
        }
        for place in places
        if 0 <= place < len(thresholds)
    ]


def place(row: Mapping[str, Any]) -> dict[str, str | None]:
    """Where a named row is, for people, and an address that a browser can follow to the second, if there is one."""
    uri = row.get("uri")
    if uri is None:
        return {"text": row["clip_id"], "href": None}
    start, end = row.get("start_s"), row.get("end_s")
    span = "" if start is None else f" {start:.1f}–{end:.1f} s"
    address = Path(uri).as_uri() if uri.startswith("/") else uri
    can_open = address.startswith(("http://", "https://", "file:///"))
    moment = "" if start is None else f"#t={start:.2f},{end:.2f}"
    return {"text": f"{uri.rsplit('/', 1)[-1]}{span}", "href": f"{address}{moment}" if can_open else None}


def _h(hours: float) -> str:
    return readable_span(3600 * hours)
