"""What listeners say of the clips of a sample, and how sure the share of wrong ones is.

A verdict is a line of JSON, which the page of an audit writes:
``{"clip_id": …, "verdict": "right" | "wrong" | "unsure", "listener": …, "note": …}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from manifests.audit.intervals import Share, stratified, wilson
from manifests.audit.listening import ListeningSample, Stratum
from manifests.errors import RequestError
from manifests.recipes import RecipeModel


class Verdict(RecipeModel):
    """What a listener says of a clip."""

    clip_id: str
    verdict: Literal["right", "wrong", "unsure"]
    listener: str = ""
    note: str = ""


def read_verdicts(data: bytes, name: str) -> list[Verdict]:
    """Verdicts of JSON lines. Raises RequestError naming the line that is none."""
    verdicts = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            verdicts.append(Verdict(**json.loads(line)))
        except (ValueError, TypeError, ValidationError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            rule = 'a line is {"clip_id": HEX, "verdict": "right" | "wrong" | "unsure"}'
            raise RequestError(f"verdicts {name!r} line {number}: {why}; {rule}") from error
    return verdicts


@dataclass(frozen=True)
class Heard:
    """Verdicts of one stratum. ``wrong`` is the share among right and wrong: an unsure listener says neither."""

    stratum: Stratum
    num_clips: int
    hours: float
    num_right: float
    num_wrong: float
    num_unsure: float
    wrong: Share


def heard(sample: ListeningSample, verdicts: Iterable[Verdict]) -> tuple[list[Heard], Share, list[str]]:
    """(verdicts by stratum, share of hours that are wrong over all strata, ids of verdicts whose clip was not drawn).

    Of several verdicts on one clip by one listener the last counts; two listeners count as half a clip each.
    """
    of = {drawn.clip_id: drawn.stratum for drawn in sample.drawn()}
    last = {(verdict.clip_id, verdict.listener): verdict for verdict in verdicts}
    unknown = sorted({clip for clip, _ in last if clip not in of})
    by_clip: dict[str, list[str]] = {}
    for (clip, _), verdict in last.items():
        if clip in of:
            by_clip.setdefault(clip, []).append(verdict.verdict)
    counts: dict[Stratum, dict[str, float]] = {stratum: {} for stratum in sample.num_clips}
    for clip, said in by_clip.items():
        for word in said:
            counts[of[clip]][word] = counts[of[clip]].get(word, 0.0) + 1.0 / len(said)
    hours, rows = sample.hours, []
    for stratum, found in sorted(counts.items(), key=lambda item: (-hours[item[0]], str(item[0]))):
        right, wrong, unsure = (found.get(word, 0.0) for word in ("right", "wrong", "unsure"))
        share = wilson(wrong, right + wrong)
        rows.append(Heard(stratum, sample.num_clips[stratum], hours[stratum], right, wrong, unsure, share))
    total = stratified([(hours[s], c.get("wrong", 0.0), c.get("wrong", 0.0) + c.get("right", 0.0)) for s, c in counts.items()])
    return rows, total, unknown
