"""Why two corpora, snapshots or packs differ, as far as their heads say: parts, recipes, takedowns, the funnel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from manifests.corpus import Corpus
from manifests.packs import Pack
from manifests.parts import PartFacts
from manifests.snapshots import Snapshot


def corpus_reasons(a: Corpus, b: Corpus) -> list[str]:
    """A line for each thing that can make rows differ, in the order in which outputs are made."""
    first, second = a.snapshot, b.snapshot
    lines = []
    if a.corpus_id != b.corpus_id:
        lines.append(f"another corpus: {a.corpus_id} and {b.corpus_id}")
    new, gone = (len({*x.units} - {*y.units}) for x, y in ((second, first), (first, second)))
    lines += [f"units: {new} only in B, {gone} only in A"] if new or gone else []
    if a.clip_set != b.clip_set:
        lines.append(f"another clip set: {a.clip_set!r}, then {b.clip_set!r}; clips are other spans")
    for output in sorted(first.current.keys() | second.current.keys()):
        lines += _output_reasons(a, b, output)
    lines += _hidden_reasons(first, second)
    for name in sorted(first.tables.keys() | second.tables.keys()):
        if first.tables.get(name) != second.tables.get(name):
            lines.append(f"decision table {name}: {_made(first.tables.get(name))}, then {_made(second.tables.get(name))}")
    return lines


def _made(path: str | None) -> str:
    return "not made" if path is None else path.split("/")[-2]


def _output_reasons(a: Corpus, b: Corpus, output: str) -> list[str]:
    marks = [corpus.snapshot.current.get(output) for corpus in (a, b)]
    if marks[0] == marks[1]:
        done = [len(corpus.snapshot.outputs.get(output, {}).get(marks[0] or "", ())) for corpus in (a, b)]
        return [] if done[0] == done[1] else [f"{output}: done of {done[0]} units, then of {done[1]}"]
    if None in marks:
        return [f"{output}: only in {'A' if marks[1] is None else 'B'}"]
    before, after = a.part(output), b.part(output)
    why = ["what made one of them is not stored"]
    if before and after:
        why = _part_reasons(before, after) or ["other parameters"]
    return [f"{output}: {marks[0]}, then {marks[1]}: {'; '.join(why)}"]


def _part_reasons(a: PartFacts, b: PartFacts) -> list[str]:
    why = []
    if a.name != b.name:
        why.append(f"part {a.name}, then {b.name}")
    if a.version != b.version:
        why.append(f"version {a.version}, then {b.version}")
    if a.models != b.models:
        why.append(f"models {_models(a)}, then {_models(b)}")
    reads = [output for output in sorted({*a.reads, *b.reads}) if a.reads.get(output) != b.reads.get(output)]
    return [*why, *([f"it reads other {', '.join(reads)}"] if reads else [])]


def _models(part: PartFacts) -> str:
    return ", ".join(f"{model.name}@{model.revision or (model.digest or '')[:12]}" for model in part.models) or "none"


def _hidden_reasons(a: Snapshot, b: Snapshot) -> list[str]:
    kinds = {
        "taken down": ("taken_recordings", "recordings"),
        "taken down in part": ("cut_recordings", "recordings"),
        "taken again by a later unit": ("superseded", "inputs"),
    }
    lines = []
    for told, (name, of) in kinds.items():
        before, after = ({id_ for ids in getattr(snapshot, name).values() for id_ in ids} for snapshot in (a, b))
        lines += [f"{told}: {len(after - before)} {of} more, {len(before - after)} fewer"] if before != after else []
    return lines


def pack_reasons(a: Pack, b: Pack) -> list[str]:
    """A line for each key of recipe and lineage that differs, and for documents that were taken down."""
    lines = [f"{key}: {old!r}, then {new!r}" for key, old, new in _changes(_decisive(a), _decisive(b))]
    return [*lines, *([f"taken down: {len(b.taken_keys - a.taken_keys)} documents"] if b.taken_keys - a.taken_keys else [])]


def _decisive(pack: Pack) -> dict[str, Any]:
    keys = ("recipe", "lineage", "tokenizer_id", "vocabulary_hash", "codec_fingerprint", "sample_rate_hz")
    return {key: pack.head.get(key) for key in keys}


def _changes(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, before, after) of every leaf that differs."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _changes(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (old, new) in enumerate(zip(a, b, strict=True)):
            yield from _changes(old, new, f"{path}.{number}")
    elif a != b:
        yield path, a, b


def funnel_changes(a: Pack, b: Pack) -> list[dict[str, Any]]:
    """Of each step and reason of the funnels what each pack lost, clips and hours."""
    steps = [{(row["step"], row["reason"]): row for row in pack.head.get("funnel", [])} for pack in (a, b)]
    found = []
    for step, reason in dict.fromkeys([*steps[0], *steps[1]]):
        before, after = (funnel.get((step, reason), {"num": 0, "hours": 0.0}) for funnel in steps)
        amounts = {"num_a": before["num"], "hours_a": before["hours"], "num_b": after["num"], "hours_b": after["hours"]}
        found.append({"step": step, "reason": reason, **amounts})
    return [row for row in found if (row["num_a"], row["hours_a"]) != (row["num_b"], row["hours_b"])]
