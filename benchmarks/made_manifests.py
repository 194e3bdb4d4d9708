"""Manifests of a corpus of any size, written as a compacted corpus is, without audio: what the audit and its like are measured on.

    .venv/bin/python -m benchmarks.made_manifests --clips 1000000 --out /tmp/made

Clips are 10 s on average, a unit has some 2,900 of them (8 h). Sources have their languages, licences, rates and quality;
recordings speakers as frequent as Zipf's law has it; layers nulls, abstentions, errors and gated rows; some units lack a
layer. Some units hold one row of each defect, and towards the end scores drift (``benchmarks.made_plan``). Columns have the names,
types and descriptions of the parts that write them; lists of codes and of words, which no audit of this size reads, are
left out. Equal arguments make equal rows, for any number of processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from benchmarks.made_plan import ADDS, CLIP_SET, EARLIER, Plan
from benchmarks.made_units import Unit, as_ids, ids_of, table_with
from manifests.compacted import CompactedPart, Compaction, compaction_folder, write_compaction
from manifests.contracts import ModelFact
from manifests.decision_tables import DecisionTable
from manifests.ids import new_attempt_id
from manifests.parts import PartFacts
from manifests.schema import SPEAKER_ALIASES, SPEAKERS
from manifests.snapshots import FORMAT_VERSION, INGEST, Snapshot, clips_output, layer_output, publish_snapshot
from manifests.store import Store, json_bytes
from manifests.tables import TableFile

PART_UNITS = 2048  # `corpus compact` cuts at 256 MB of the largest table, which is about as many
EARLIER_MARK = "d" * 15 + "0"


@dataclass(frozen=True)
class PartTask:
    """The units of one compacted part of every output."""

    uri: str
    plan: Plan
    units: range
    marks: Mapping[str, str]  # output -> fingerprint


class Made(NamedTuple):
    """Compacted parts by output, and what speakers got of them."""

    parts: list[tuple[str, str, CompactedPart]]  # output (or name of a table), fingerprint
    num_clips: np.ndarray
    clip_s: np.ndarray
    speech_s: np.ndarray


@lru_cache(maxsize=1)
def speaker_ids(plan: Plan) -> np.ndarray:
    """uint8 ``[speakers, 16]``."""
    return ids_of(np.random.default_rng((plan.seed, 1 << 40)), plan.num_speakers)


def write_part(task: PartTask) -> Made:
    """Write the parts of some units."""
    plan, ids = task.plan, speaker_ids(task.plan)
    files: dict[tuple[str, str, str], _OpenPart] = {}
    sums = np.zeros((3, plan.num_speakers))
    for number in task.units:
        unit = Unit(plan, number, ids)
        clips = {(clips_output(CLIP_SET), "clips"): unit.clips, ("speaker_id", "clips"): unit.decided()}
        layers = {(layer_output(CLIP_SET, name), "layer"): table for name, table in unit.layers.items()}
        for (output, role), table in {**clips, **layers, **{(INGEST, role): t for role, t in unit.ingested().items()}}.items():
            if number >= plan.num_units * (1 - plan.lacking) and output == layer_output(CLIP_SET, "style"):
                continue
            files.setdefault((output, task.marks[output], role), _OpenPart()).append(plan.units[number], table)
        if number < plan.num_units * EARLIER:
            output = layer_output(CLIP_SET, "dnsmos")
            files.setdefault((output, EARLIER_MARK, "layer"), _OpenPart()).append(plan.units[number], unit.earlier_dnsmos())
        for row, weights in enumerate((None, unit.durations_s, unit.speech_s)):
            sums[row] += np.bincount(unit.speakers, weights, plan.num_speakers)
    store = Store(task.uri)
    parts = [(output, mark, file.put(store, output, mark, role)) for (output, mark, role), file in files.items()]
    return Made(parts, *sums)


class _OpenPart:
    """A compacted part in the making."""

    def __init__(self) -> None:
        self._file: TableFile | None = None
        self._units: list[str] = []

    def append(self, unit: str, table: pa.Table) -> None:
        self._file = self._file or TableFile(table.schema)
        self._file.append(table)
        self._units.append(unit)

    def put(self, store: Store, output: str, mark: str, role: str) -> CompactedPart:
        assert self._file is not None
        rows, group = self._file.row_group_rows, self._units[0]
        folder = f"tables/{output}/{mark}" if output == "speaker_id" else compaction_folder(output, mark)
        fact = self._file.put(store, f"{folder}/{role}-{group}-{new_attempt_id()}.parquet")
        return CompactedPart(role, group, fact.path, fact.num_bytes, fact.digest, self._units, list(range(len(rows))), rows)


def marks() -> dict[str, str]:
    """output (or name of a decision table) -> fingerprint."""
    names = [INGEST, clips_output(CLIP_SET), *(layer_output(CLIP_SET, name) for name in ADDS), "speaker_id"]
    return {name: f"{place + 1:x}" * 16 for place, name in enumerate(names)}


def make_corpus(uri: str, plan: Plan, num_processes: int = 2) -> None:
    """Write the corpus at a URI where there is none yet."""
    store, current = Store(uri), marks()
    store.create(
        "corpus.json", json_bytes({"format_version": FORMAT_VERSION, "corpus_id": f"made-{plan.seed}", "sample_rate": "native"})
    )
    size = min(PART_UNITS, -(-plan.num_units // num_processes))
    spans = [range(at, min(plan.num_units, at + size)) for at in range(0, plan.num_units, size)]
    tasks = [PartTask(uri, plan, units, current) for units in spans]
    sums = np.zeros((3, plan.num_speakers))
    parts: dict[tuple[str, str], list[CompactedPart]] = {}
    for made in _each(tasks, num_processes):
        for output, mark, part in made.parts:
            parts.setdefault((output, mark), []).append(part)
        sums += np.stack(made[1:])
    table = parts.pop(("speaker_id", current["speaker_id"]))
    head = _write_speakers(store, plan, current, table, sums)
    _write_snapshot(store, plan, current, parts, {"speaker_id": head})


def _each(tasks: Sequence[PartTask], num_processes: int) -> Iterator[Made]:
    if num_processes == 1 or len(tasks) == 1:
        yield from map(write_part, tasks)
        return
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write_part, tasks)


def _write_snapshot(
    store: Store,
    plan: Plan,
    current: Mapping[str, str],
    parts: Mapping[tuple[str, str], list[CompactedPart]],
    tables: dict[str, str],
) -> None:
    outputs: dict[str, dict[str, list[str]]] = {}
    compacted: dict[str, dict[str, str]] = {}
    for (output, mark), made in parts.items():
        role = made[0].role
        outputs.setdefault(output, {})[mark] = sorted(unit for part in made if part.role == role for unit in part.units)
        compacted.setdefault(output, {})[mark] = write_compaction(store, Compaction(output, mark, made))
        _, _, name = output.partition(f"layers/{CLIP_SET}/")
        if name:
            model = ModelFact(name, "1" if mark == EARLIER_MARK else "2", "0" * 32, "MIT")
            PartFacts(name, "1", (model,), {clips_output(CLIP_SET): current[clips_output(CLIP_SET)]}).write(store, output, mark)
    known = {output: mark for output, mark in current.items() if output in outputs}
    assert publish_snapshot(store, Snapshot(0, plan.units, outputs, known, CLIP_SET, compacted=compacted, tables=tables))


def _write_speakers(store: Store, plan: Plan, current: Mapping[str, str], parts: list[CompactedPart], sums: np.ndarray) -> str:
    """The decision table of speakers; returns the path of its head."""
    num_clips, clip_s, speech_s = sums
    heard = num_clips > 0
    num = int(heard.sum())
    speakers = {
        "speaker_id": as_ids(speaker_ids(plan)[heard]),
        "num_clips": num_clips[heard].astype(np.int64),
        "num_recordings": np.maximum(1, num_clips[heard].astype(np.int64) // plan.clips_a_recording),
        "clip_s": clip_s[heard],
        "speech_s": speech_s[heard],
        "since_snapshot": np.zeros(num, np.int64),
        "weight": np.minimum(30, clip_s[heard]),
        "self_share": 1 / num_clips[heard],
        "centroid": pa.array([[]] * num, pa.list_(pa.float32())),
    }
    wholes = {}
    for role, table in (("speakers", table_with(speakers, SPEAKERS, num)), ("aliases", SPEAKER_ALIASES.empty_table())):
        file = TableFile(table.schema)
        file.append(table)
        wholes[role] = file.put(store, f"tables/speaker_id/{current['speaker_id']}/{role}-{new_attempt_id()}.parquet")
    reads = {clips_output(CLIP_SET): current[clips_output(CLIP_SET)]}
    ordered = sorted(parts, key=lambda part: part.group)
    head = DecisionTable("speaker_id", current["speaker_id"], 0, reads, {}, wholes=wholes, parts=ordered)
    path = f"{head.folder}/{new_attempt_id()}.json"
    store.write(path, json_bytes(asdict(head)))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--out", required=True, help="folder or URI of the new corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    plan = Plan(options.clips, options.seed)
    make_corpus(options.out, plan, options.processes)
    num_bytes = sum(Store(options.out).size(path) for path in Store(options.out).objects(""))
    wall_s = time.monotonic() - began
    print(
        f"{plan.num_clips} clips in {plan.num_units} units, {num_bytes / 1e9:.2f} GB, {wall_s:.0f} s; {len(plan.planted_units)} of each defect"
    )


if __name__ == "__main__":
    main()
