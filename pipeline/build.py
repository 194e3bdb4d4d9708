"""``corpus build`` and ``corpus annotate``: plan, run what is not committed yet, publish a snapshot."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotators.catalog import AnnotatorConfig
from manifests.commits import list_commits
from manifests.contracts import Annotator
from manifests.corpus import (
    FORMAT_VERSION,
    INGEST,
    Corpus,
    Snapshot,
    clips_output,
    read_head,
)
from manifests.errors import RequestError, WorkError
from manifests.recipes import RecipeModel, resolved
from manifests.store import Store, json_bytes
from pipeline.engines import Engine, LocalEngine, Task
from pipeline.ledger import RunLedger
from pipeline.publish import publish
from pipeline.recipe import BuildRecipe
from pipeline.sources import list_inputs
from pipeline.units import Unit, plan_units, read_planned, write_plan
from pipeline.works import AnnotateWork, ClipWork, IngestWork, SegmentWork, Work


@dataclass(frozen=True)
class BuildResult:
    """What a run did. ``num_tasks_reused`` were committed before it began and were not touched."""

    corpus_uri: str
    run_id: str | None  # None when there was nothing to do
    snapshot: int
    clip_set: str
    num_units: int
    num_tasks_done: int
    num_tasks_reused: int
    num_inputs: int
    num_refused: int
    num_partial: int
    num_recordings: int
    num_clips: int
    audio_s: float
    clip_s: float

    def lines(self) -> list[str]:
        """The result for people."""
        ran = f"{self.num_tasks_done} tasks done, {self.num_tasks_reused} found committed"
        return [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {ran}",
            f"{self.num_inputs} inputs: {self.num_refused} refused, {self.num_partial} kept in part (see quarantine)",
            f"{self.num_recordings} recordings, {self.audio_s / 3600:.3f} h; "
            f"{self.num_clips} clips, {self.clip_s / 3600:.3f} h ({self.clip_set})",
        ]


@dataclass(frozen=True)
class DryRun:
    """What a build would do: units and, by output, tasks to run and why."""

    num_inputs: int
    num_new_inputs: int
    num_units: int
    outputs: list[dict[str, Any]]  # output, num_tasks, why

    def lines(self) -> list[str]:
        """The plan for people."""
        head = f"{self.num_inputs} inputs listed, {self.num_new_inputs} new; {self.num_units} units"
        return [head, *(f"  {row['output']}: {row['num_tasks']} units to run ({row['why']})" for row in self.outputs)]


def build(
    sources: Sequence[str], out: str, recipe: BuildRecipe, engine: Engine | None = None, *, dry_run: bool = False
) -> BuildResult | DryRun:
    """Build or continue the corpus at ``out``. Raises RequestError before anything is written."""
    inputs = list_inputs(sources)
    works = make_works(recipe)
    store = Store(out)
    head = read_head(store)
    if head is not None and head["sample_rate"] != recipe.store.sample_rate:
        raise RequestError(
            f"corpus {out!r} stores audio at {head['sample_rate']!r}, the recipe says {recipe.store.sample_rate!r}; "
            "use the corpus' own or another --out"
        )
    planned = read_planned(store)
    new_units = plan_units(planned, inputs, recipe.units)
    run = _Run(store, [*planned, *new_units], works)
    if dry_run:
        num_new = sum(len(unit.inputs) for unit in new_units)
        return DryRun(len(inputs), num_new, len(run.units), run.explain())
    runner = engine or LocalEngine()
    if run.todo:
        runner.check(works)
    store.check_exclusive()
    if head is None:
        fresh = {"format_version": FORMAT_VERSION, "corpus_id": os.urandom(16).hex(), "sample_rate": recipe.store.sample_rate}
        store.create("corpus.json", json_bytes(fresh))
    clip_work = next(work for work in works if isinstance(work, ClipWork))
    return run.execute(runner, recipe, new_units, clip_work.clip_set)


def annotate(corpus_uri: str, layers: Mapping[str, AnnotatorConfig | RecipeModel], engine: Engine | None = None) -> BuildResult:
    """Add layers to the current clip set of a corpus; every config is one with ``build() -> Annotator``."""
    corpus = Corpus.open(corpus_uri)
    known = dict(corpus.layers())
    clips = corpus.fingerprint(clips_output(corpus.clip_set))
    works: list[Work] = []
    # Every variant has ``build``; so has the codec's config, which is no variant of the union.
    annotators: dict[str, Annotator] = {name: config.build() for name, config in layers.items()}  # type: ignore[union-attr]
    for name in _ordered(annotators, {name: part.reads for name, part in annotators.items()}):
        works.append(_annotate_work(name, annotators[name], corpus.clip_set, corpus.fingerprint(INGEST), clips, known))
        known[name] = works[-1].fingerprint
    # Units that a build has planned but not finished are that build's business.
    finished = set(corpus.snapshot.units)
    run = _Run(corpus.store, [unit for unit in read_planned(corpus.store) if unit.unit_id in finished], works)
    runner = engine or LocalEngine()
    if run.todo:
        runner.check(works)
    return run.execute(runner, _Layers(layers=dict(layers)), [], corpus.clip_set)


class _Layers(RecipeModel):
    """The resolved recipe of ``annotate``."""

    layers: dict[str, Any]


def make_works(recipe: BuildRecipe) -> list[Work]:
    """The works of a recipe, each after what it reads. Raises ModelUnavailable where a part's weights are not here."""
    ingest = IngestWork(recipe.store)
    works: list[Work] = [ingest]
    spans: dict[str, str] = {}
    for name in _ordered(recipe.segmenters, {gated: (gate,) for gated, gate in recipe.gates.items()}):
        gate = recipe.gates.get(name)
        segmenter = recipe.segmenters[name].build()
        works.append(SegmentWork(name, segmenter, ingest.fingerprint, gate, spans.get(gate) if gate else None))
        spans[name] = works[-1].fingerprint
    clips = ClipWork(recipe.clip_set, ingest.fingerprint, spans)
    works.append(clips)
    layers: dict[str, str] = {}
    annotators = {name: config.build() for name, config in recipe.annotators.items()}
    for name in _ordered(annotators, {name: part.reads for name, part in annotators.items()}):
        works.append(_annotate_work(name, annotators[name], clips.clip_set, ingest.fingerprint, clips.fingerprint, layers))
        layers[name] = works[-1].fingerprint
    return works


def _annotate_work(
    name: str, annotator: Annotator, clip_set: str, ingest: str, clips: str, layers: Mapping[str, str]
) -> AnnotateWork:
    for read in annotator.reads:
        if read not in layers:
            raise RequestError(
                f"layer {name!r} reads layer {read!r}, which is not there; layers are {', '.join(layers) or 'none'}"
            )
    return AnnotateWork(name, annotator, clip_set, ingest, clips, {read: layers[read] for read in annotator.reads})


def _ordered(names: Iterable[str], reads: Mapping[str, Iterable[str]]) -> list[str]:
    """The names, each after those it reads; as given where that leaves a choice. Raises RequestError on a circle."""
    left, ordered = list(names), list[str]()
    while left:
        free = next((n for n in left if not (set(reads.get(n, ())) & set(left))), None)
        if free is None:
            raise RequestError(f"{', '.join(left)} read each other in a circle; take one of the reads out")
        left.remove(free)
        ordered.append(free)
    return ordered


class _Run:
    """One execution: what is committed, what is not, and the snapshot at the end."""

    def __init__(self, store: Store, units: list[Unit], works: list[Work]) -> None:
        self.store, self.units, self.works = store, units, works
        self.committed = {key: set(done) for key, done in list_commits(store).items()}
        self.todo = [
            Task(u, w)
            for u, unit in enumerate(units)
            for w, work in enumerate(works)
            if unit.unit_id not in self.committed.get((work.output, work.fingerprint), ())
        ]

    def explain(self) -> list[dict[str, Any]]:
        """By output: how many units are to run, and why."""
        rows = []
        for w, work in enumerate(self.works):
            num_tasks = sum(task.work == w for task in self.todo)
            earlier = {fingerprint for output, fingerprint in self.committed if output == work.output} - {work.fingerprint}
            done = len(self.units) - num_tasks
            why = "new units" if done else "fingerprint changed" if earlier else "never ran"
            rows.append({"output": work.output, "num_tasks": num_tasks, "why": why if num_tasks else "all committed"})
        return rows

    def execute(self, engine: Engine, recipe: RecipeModel, new_units: list[Unit], clip_set: str) -> BuildResult:
        run_id = None
        if self.todo or new_units:
            now = datetime.datetime.now(datetime.UTC)
            run_id = f"{now:%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
            self.store.create(f"runs/{run_id}/recipe.json", json_bytes(resolved(recipe)))
            # The plan before the work: whoever continues a killed run finds the same units.
            write_plan(self.store, run_id, new_units)
            try:
                self._work(engine, run_id)
            except KeyboardInterrupt:
                raise WorkError("interrupted; every finished task is committed, run the same command to go on") from None
        current = {work.output: work.fingerprint for work in self.works}
        return self._result(run_id, publish(self.store, [unit.unit_id for unit in self.units], current, clip_set))

    def _work(self, engine: Engine, run_id: str) -> None:
        totals = {work.output: sum(task.work == w for task in self.todo) for w, work in enumerate(self.works)}
        unit_bytes = {unit.unit_id: unit.num_bytes for unit in self.units}
        total_bytes = dict.fromkeys(totals, 0)
        for task in self.todo:
            total_bytes[self.works[task.work].output] += self.units[task.unit].num_bytes
        ledger_of = RunLedger(self.store, run_id, totals, works=self.works, unit_bytes=unit_bytes, total_bytes=total_bytes)
        with ledger_of as ledger:
            engine.run(self.store, self.units, self.works, self.todo, lambda _, row: ledger.add(row))

    def _result(self, run_id: str | None, snapshot: Snapshot) -> BuildResult:
        corpus = Corpus.open(self.store.uri, snapshot.number)
        outcomes = corpus.inputs()["outcome"].to_pylist()
        recordings, clips = corpus.recordings().to_pylist(), corpus.clips().to_pylist()
        return BuildResult(
            corpus_uri=self.store.uri,
            run_id=run_id,
            snapshot=snapshot.number,
            clip_set=snapshot.clip_set,
            num_units=len(self.units),
            num_tasks_done=len(self.todo),
            num_tasks_reused=len(self.units) * len(self.works) - len(self.todo),
            num_inputs=len(outcomes),
            num_refused=outcomes.count("refused"),
            num_partial=outcomes.count("partial"),
            num_recordings=len(recordings),
            num_clips=len(clips),
            audio_s=sum(row["num_samples"] / row["sample_rate_hz"] for row in recordings),
            clip_s=sum((row["end_sample"] - row["start_sample"]) / row["sample_rate_hz"] for row in clips),
        )
