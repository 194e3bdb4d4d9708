"""What parts cost for every second of audio, as measured by ledgers: what forecasts and simulations calculate with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from manifests.commits import list_commits, read_commit
from manifests.errors import RequestError
from manifests.recipes import RecipeModel, decode_recipe
from manifests.snapshots import INGEST
from manifests.store import Store
from pipeline.heartbeat import Heartbeat, read_heartbeats
from pipeline.ledger import read_ledger


class PartRate(RecipeModel):
    """One part. An *audio-second* is a second of the source, whatever share of it the part hears."""

    part: str
    reads: tuple[str, ...] = ()  # parts
    pool: str = "signal"
    num_cpus: float = Field(default=1.0, gt=0)  # that one task holds
    num_gpus: NonNegativeFloat = 0.0  # that one worker holds
    wall_s: NonNegativeFloat  # of a worker, an audio-second, without loading the model
    cpu_s: NonNegativeFloat  # CPU time, an audio-second, without loading the model
    unit_wall_s: NonNegativeFloat = 0.0  # of a worker, a unit, whatever it holds
    unit_cpu_s: NonNegativeFloat = 0.0
    setup_s: NonNegativeFloat = 0.0  # to load its model, once in every worker
    num_bytes: NonNegativeFloat = 0.0  # written, an audio-second
    num_objects: NonNegativeInt = 2  # written a unit, its commit included


class Rates(RecipeModel):
    """Measured rates. ``parts`` are in an order that their reads allow."""

    parts: tuple[PartRate, ...] = Field(min_length=1)
    unit_audio_s: tuple[NonNegativeFloat, ...] = Field(min_length=1)  # audio-seconds of each unit measured
    worker_start_s: NonNegativeFloat = 0.0  # from asking for a worker to its first task
    dispatch_s: NonNegativeFloat = 0.0  # from the end of a task to the start of the next on its CPU
    stop_s: NonNegativeFloat = 0.0  # from the end of the last task to the end of the run: workers and cluster stop


def read_rates(path: str) -> Rates:
    """From a JSON or YAML file. Raises RequestError naming the first key that is wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            return decode_recipe(Rates, file.read(), path)
    except OSError as error:
        raise RequestError(f"rates {path!r} cannot be read: {error.strerror}; give a file, or --from a corpus") from error


def measured_rates(uri: str) -> Rates:
    """From the ledgers of a corpus, each part from the newest run that worked on it; or of one run, ``CORPUS/runs/ID``.

    Raises RequestError where no unit was worked on yet.
    """
    corpus_uri, _, run_id = uri.rstrip("/").partition("/runs/")
    store = Store(corpus_uri)
    runs = [run for run in read_heartbeats(store) if run_id in ("", run.run_id)]
    rows, newest = dict[str, list[dict[str, Any]]](), dict[str, Heartbeat]()
    audio_s: dict[str, float] = {}
    for run in runs:
        by_part: dict[str, list[dict[str, Any]]] = {}
        for row in read_ledger(store, run.run_id).to_pylist():
            by_part.setdefault(row["part"], []).append(row)
        rows |= by_part
        newest |= dict.fromkeys(by_part, run)
        audio_s |= {row["unit"]: row["audio_s"] for row in by_part.get(INGEST, ())}
    if not audio_s:
        raise RequestError(f"no run at {uri!r} has ingested a unit: nothing was measured; build a sample first")
    facts = _commit_facts(store, rows)
    parts = [_part_rate(part, rows[part], audio_s, newest[part], *facts.get(part, ((), 2))) for part in rows]
    known = {part.part for part in parts}
    kept = [part.model_copy(update={"reads": tuple(sorted(known & set(part.reads)))}) for part in parts]
    last = newest[INGEST]
    own = [row for part, run in newest.items() if run is last for row in rows[part]]
    ended_at_s = max(row["started_at_s"] + row["wall_s"] for row in own)
    return Rates(
        parts=tuple(_ordered(kept)),
        unit_audio_s=tuple(audio_s[unit] for unit in sorted(audio_s)),
        worker_start_s=max(0.0, min(row["started_at_s"] for row in own) - last.started_at_s),
        dispatch_s=dispatch_s(own),
        # A run that was cut off, or is at work, has not stopped yet.
        stop_s=max(0.0, last.updated_at_s - ended_at_s) if last.state == "done" else 0.0,
    )


def dispatch_s(rows: Sequence[Mapping[str, Any]]) -> float:
    """Mean seconds from the end of the latest task that had ended to the start of the next, by LEDGER rows of one run.

    A worker's first task is left out: it waits for the worker too.
    """
    ordered = sorted(rows, key=lambda row: row["started_at_s"])
    ends = sorted(row["started_at_s"] + row["wall_s"] for row in rows)
    gaps, seen, ended = list[float](), set[str](), 0
    for row in ordered:
        while ended < len(ends) and ends[ended] <= row["started_at_s"]:
            ended += 1
        if ended and row["worker"] in seen:
            gaps.append(row["started_at_s"] - ends[ended - 1])
        seen.add(row["worker"])
    return statistics.mean(gaps) if gaps else 0.0


def working_cpu_s(row: Mapping[str, Any]) -> float:
    """CPU seconds of a worker's first unit without loading: that is one thread at work, as long as it lasts."""
    return max(row["model_cpu_s"], row["cpu_s"] - row["setup_s"])


def _part_rate(
    part: str,
    rows: Sequence[Mapping[str, Any]],
    audio_s: Mapping[str, float],
    run: Heartbeat,
    reads: tuple[str, ...],
    objects: int,
) -> PartRate:
    counted = [row for row in rows if row["unit"] in audio_s]
    heard_s = max(sum(audio_s[row["unit"]] for row in counted), 1e-9)
    first = {row["worker"]: row for row in sorted(rows, key=lambda row: -row["started_at_s"])}
    loading = {id(row) for row in first.values()}
    facts = next(progress for progress in run.parts if progress.part == part)
    return PartRate(
        part=part,
        reads=reads,
        pool=facts.pool or "signal",
        num_cpus=facts.num_cpus,
        num_gpus=facts.num_gpus,
        wall_s=sum(row["wall_s"] - row["setup_s"] * (id(row) in loading) for row in counted) / heard_s,
        cpu_s=sum(working_cpu_s(row) if id(row) in loading else row["cpu_s"] for row in counted) / heard_s,
        setup_s=statistics.mean(row["setup_s"] for row in first.values()),
        num_bytes=sum(row["num_bytes"] for row in counted) / heard_s,
        num_objects=objects,
    )


def _commit_facts(store: Store, parts: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], int]]:
    """Part -> (parts that it reads, objects that a unit writes), from one commit of each."""
    found = {}
    for (output, fingerprint), units in list_commits(store).items():
        if output in parts and (commit := read_commit(store, output, fingerprint, units[-1])) is not None:
            found[output] = (tuple(commit.reads), len(commit.objects) + 1)
    return found


def _ordered(parts: Sequence[PartRate]) -> list[PartRate]:
    """Each after those that it reads."""
    left, ordered = list(parts), list[PartRate]()
    while left:
        names = {part.part for part in left}
        ordered.append(next(part for part in left if not names & set(part.reads)))
        left.remove(ordered[-1])
    return ordered
