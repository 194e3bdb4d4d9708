"""Why a build would do what it would do: for each output, how many units are to run and what changed since the last run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from manifests.figures import build_recipe
from manifests.store import Store
from pipeline.annotate_work import AnnotateWork
from pipeline.recording_works import ClipWork, IngestWork, SegmentWork
from pipeline.works import Work

Committed = Mapping[tuple[str, str], Sequence[str]]  # (output, fingerprint) -> units


def explain(
    works: Sequence[Work], num_tasks: Sequence[int], committed: Committed, store: Store, recipe: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row an output: output, num_tasks, why. ``num_tasks`` counts the units that each work is to run on."""
    before = build_recipe(store)
    changed: set[str] = set()
    rows = []
    for work, num in zip(works, num_tasks, strict=True):
        earlier = {output for output, _ in committed if _part_of(output) == _part_of(work.output)}
        if not num:
            why = "all committed"
        elif committed.get((work.output, work.fingerprint)):
            why = "not done yet"
        elif not earlier:
            why = "never ran"
        else:
            changed.add(work.output)
            why = _change(work, changed, before, recipe)
        if num and isinstance(work, AnnotateWork) and work.carry_from:
            why += "; rows of unchanged clips are carried over"
        rows.append({"output": work.output, "num_tasks": num, "why": why})
    return rows


def _change(work: Work, changed: set[str], before: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """What makes the work's output another one than before."""
    own = _settings(work)
    moved = list(_differences(_at(before, own), _at(recipe, own), ".".join(own))) if before else []
    read = [output for output in work.reads if output in changed]
    reasons = [*moved, *(f"reads {output}, which changes" for output in read)]
    return "; ".join(reasons) or "its version, weights or gate changed"


def _settings(work: Work) -> tuple[str, ...]:
    """Where the recipe says how the work's output is made."""
    if isinstance(work, IngestWork):
        return ("store",)
    if isinstance(work, SegmentWork):
        return ("segmenters", work.name)
    if isinstance(work, AnnotateWork):
        return ("annotators", work.name)
    assert isinstance(work, ClipWork)
    return ("clip_set",)


def _part_of(output: str) -> str:
    """What an output is whatever clip set it belongs to: ``layers/<clip set>/asr`` is the layer asr."""
    kind, _, rest = output.partition("/")
    return f"{kind}/{rest.rpartition('/')[2]}" if kind == "layers" else kind if kind == "clips" else output


def _at(recipe: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = recipe
    for key in place:
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found


def _differences(left: Any, right: Any, name: str) -> Iterator[str]:
    """``key: old → new`` of every value that differs."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for key in sorted({*left, *right}):
            yield from _differences(left.get(key), right.get(key), f"{name}.{key}")
    elif left != right:
        yield f"{name}: {left} → {right}"
