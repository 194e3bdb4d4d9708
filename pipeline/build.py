"""``corpus build`` and ``corpus annotate``: plan, run what is not committed yet, publish a snapshot."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotators.weights import is_packaged
from manifests.commits import list_commits, read_commit
from manifests.console import counted, say
from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.gates import AnnotatorConfigBase
from manifests.parts import PartFacts
from manifests.recipes import RecipeModel, resolved
from manifests.snapshots import FORMAT_VERSION, INGEST, clips_output, latest_snapshot_number, read_head, read_snapshot
from manifests.store import Store, json_bytes
from manifests.tables import UnitTables
from manifests.tombstones import TABLE as TAKEDOWNS
from manifests.tombstones import Tombstones
from pipeline.annotate_work import AnnotateWork
from pipeline.assembly import annotate_works, make_works
from pipeline.costs import CostTable, cost_table, lines
from pipeline.engines import Engine, InlineEngine
from pipeline.explain import explain
from pipeline.heartbeat import notice, others
from pipeline.ledger import RunLedger
from pipeline.limits import LimitsConfig
from pipeline.publish import publish
from pipeline.recipe import BuildRecipe
from pipeline.recording_works import ClipWork, IngestWork
from pipeline.rights.source_rights import RightsFile
from pipeline.schedule import Task
from pipeline.sources import ColumnMap, Input, list_inputs
from pipeline.units import Unit, claim_plan, plan_units, read_planned, read_plans
from pipeline.works import Work


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
    costs: CostTable | None  # of this run

    def lines(self) -> list[str]:
        """The result for people."""
        ran = f"{counted(self.num_tasks_done, 'task')} done, {self.num_tasks_reused:,} found committed"
        return [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {ran}",
            f"{counted(self.num_inputs, 'input')}: {self.num_refused} refused, {self.num_partial} kept in part (see quarantine)",
            f"{counted(self.num_recordings, 'recording')}, {self.audio_s / 3600:.3f} h; "
            f"{counted(self.num_clips, 'clip')}, {self.clip_s / 3600:.3f} h ({self.clip_set})",
            *(lines(self.costs) if self.costs else []),
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
        head = f"{counted(self.num_inputs, 'input')} listed, {self.num_new_inputs:,} new; {counted(self.num_units, 'unit')}"
        return [head, *(f"  {row['output']}: {counted(row['num_tasks'], 'unit')} to run ({row['why']})" for row in self.outputs)]


def dry_run(
    sources: Sequence[str], out: str, recipe: BuildRecipe, columns: ColumnMap | None = None, rights: RightsFile | None = None
) -> DryRun:
    """What ``build`` would do; writes nothing."""
    works, store = make_works(recipe), Store(out)
    _checked_head(store, recipe)
    planned = read_planned(store)
    inputs = _listed(sources, columns, planned, rights, Tombstones.at(store, _takedowns(store)))
    new_units = plan_units(planned, inputs, recipe.units)
    run = _Run(store, [*planned, *new_units], works, list_commits(store), recipe.limits)
    num_tasks = [sum(task.work == w for task in run.todo) for w in range(len(works))]
    rows = explain(run.works, num_tasks, run.committed, store, resolved(recipe))
    return DryRun(len(inputs), sum(len(unit.inputs) for unit in new_units), len(run.units), rows)


def build(
    sources: Sequence[str],
    out: str,
    recipe: BuildRecipe,
    engine: Engine | None = None,
    *,
    columns: ColumnMap | None = None,
    rights: RightsFile | None = None,
    retry_quarantined: Collection[str] = (),
) -> BuildResult:
    """Build or continue the corpus at ``out``; inputs refused for a reason of ``retry_quarantined`` are taken again.

    ``columns`` says which columns of manifests and tables are which facts, ``rights`` what holds for whole sources. Raises RequestError before anything is written.
    """
    works, store = make_works(recipe), Store(out)
    head = _checked_head(store, recipe)
    plans, takedowns = read_plans(store), _takedowns(store)
    works = [replace(work, takedowns=takedowns) if isinstance(work, IngestWork) else work for work in works]
    inputs = _listed(sources, columns, plans.units, rights, Tombstones.at(store, takedowns))

    def plan(planned: Sequence[Unit]) -> list[Unit]:
        again = _refused(store, planned, works[0], retry_quarantined) if retry_quarantined else []
        return plan_units(planned, inputs, recipe.units, again)

    committed = list_commits(store)
    with closing(engine or InlineEngine()) as runner:
        _Run(store, [*plans.units, *plan(plans.units)], works, committed, recipe.limits).check(runner)
        store.check_exclusive()
        if head is None:
            fresh = {"format_version": FORMAT_VERSION, "corpus_id": os.urandom(16).hex(), "sample_rate": recipe.store.sample_rate}
            store.create("corpus.json", json_bytes(fresh))
        run = _Run(store, claim_plan(store, plans, plan), works, committed, recipe.limits)
        clip_work = next(work for work in works if isinstance(work, ClipWork))
        return run.execute(runner, recipe, clip_work.clip_set)


def _listed(
    sources: Sequence[str],
    columns: ColumnMap | None,
    planned: Sequence[Unit],
    rights: RightsFile | None,
    tombstones: Tombstones,
) -> list[Input]:
    """Inputs of the sources that were not taken down; tars, tables and datasets that a plan of the corpus holds are not opened again."""
    listed = list_inputs(sources, columns, (item for unit in planned for item in unit.inputs))
    inputs = [item for item in listed if item.input_id not in tombstones.inputs]
    if len(inputs) < len(listed):
        say(f"note: {counted(len(listed) - len(inputs), 'input')} of the sources were taken down and stay out")
    return rights.applied(inputs) if rights else inputs


def _takedowns(store: Store) -> str | None:
    """Path of the table of what was taken down; None where nothing was."""
    number = latest_snapshot_number(store)
    return read_snapshot(store, number).tables.get(TAKEDOWNS) if number >= 0 else None


def annotate(
    corpus_uri: str,
    layers: Mapping[str, AnnotatorConfigBase],
    engine: Engine | None = None,
    limits: LimitsConfig | None = None,
) -> BuildResult:
    """Add layers to the current clip set of a corpus; every config is one with ``build() -> Annotator``.

    Raises RequestError where a layer reads what the corpus lacks.
    """
    corpus = Corpus.open(corpus_uri)
    clips = corpus.fingerprint(clips_output(corpus.clip_set))
    works = annotate_works(layers, corpus.clip_set, corpus.fingerprint(INGEST), clips, corpus.layers())
    if any(isinstance(work, AnnotateWork) and work.reads_spans_of_clips for work in works):
        for unit in corpus.snapshot.units[:1]:
            UnitView(corpus, unit).clips(["speech_spans"])  # raises where clips were cut before they had them
    # Units that a build has planned but not finished are that build's business.
    finished = set(corpus.snapshot.units)
    units = [unit for unit in read_planned(corpus.store) if unit.unit_id in finished]
    run = _Run(corpus.store, units, works, list_commits(corpus.store), limits or LimitsConfig())
    with closing(engine or InlineEngine()) as runner:
        run.check(runner)
        return run.execute(runner, _Layers(layers=dict(layers)), corpus.clip_set)


class _Layers(RecipeModel):
    """The resolved recipe of ``annotate``."""

    layers: dict[str, Any]


def _checked_head(store: Store, recipe: BuildRecipe) -> dict[str, Any] | None:
    head = read_head(store)
    if head is not None and head["sample_rate"] != recipe.store.sample_rate:
        raise RequestError(
            f"corpus {store.uri!r} stores audio at {head['sample_rate']!r}, the recipe says {recipe.store.sample_rate!r}; "
            "use the corpus' own or another --out"
        )
    return head


def _refused(store: Store, planned: Sequence[Unit], ingest: Work, reasons: Collection[str]) -> list[Input]:
    """Inputs whose last unit refused them for one of the reasons."""
    last = {item.input_id: (unit.unit_id, item) for unit in planned for item in unit.inputs}
    found, tables = [], UnitTables(store)
    for unit in planned:
        if read_commit(store, INGEST, ingest.fingerprint, unit.unit_id) is None:
            continue
        table = tables.read(INGEST, ingest.fingerprint, unit.unit_id, "quarantine", ["input_id", "reason", "outcome"])
        for row in table.to_pylist():
            unit_id, item = last[row["input_id"]]
            if unit_id == unit.unit_id and row["outcome"] == "refused" and row["reason"] in reasons:
                found.append(item)
    return found


class _Run:
    """One execution: what is committed, what is not, and the snapshot at the end."""

    def __init__(
        self,
        store: Store,
        units: list[Unit],
        works: list[Work],
        committed: Mapping[tuple[str, str], list[str]],
        limits: LimitsConfig,
    ) -> None:
        self.store, self.units, self.limits, self.committed = store, units, limits, committed
        self.works = [self._carrying(work) for work in works]
        done = {key: set(units) for key, units in self.committed.items()}
        self.todo = [
            Task(u, w)
            for u, unit in enumerate(units)
            for w, work in enumerate(self.works)
            if unit.unit_id not in done.get((work.output, work.fingerprint), ())
        ]

    def _carrying(self, work: Work) -> Work:
        """The work, told which other clip sets hold rows of the same part."""
        if not isinstance(work, AnnotateWork):
            return work
        same = sorted(
            output
            for output, fingerprint in self.committed
            if fingerprint == work.fingerprint and output != work.output and output.endswith(f"/{work.name}")
        )
        return replace(work, carry_from=tuple(same))

    def check(self, engine: Engine) -> None:
        """Raise RequestError where the engine cannot run what is to do.

        A model that came with no package is loaded once: files that are whole as far as their headers tell may hold
        tensors of other shapes, and ingest may take days.
        """
        if not self.todo:
            return
        engine.check(self.works)
        models = {number: work.part.models for number, work in enumerate(self.works) if work.part}
        to_load = [n for n in sorted({task.work for task in self.todo} & models.keys()) if not all(map(is_packaged, models[n]))]
        if to_load:
            say(f"loading models to see that they load: {', '.join(self.works[number].output for number in to_load)}")
            engine.load(self.store, self.works, to_load, self.limits)

    def execute(self, engine: Engine, recipe: RecipeModel, clip_set: str) -> BuildResult:
        run_id = costs = None
        for work in self.works:
            if (part := work.part) is not None:
                facts = PartFacts(part.name, part.version, part.models, work.reads)
                facts.write(self.store, work.output, work.fingerprint)
        if self.todo:
            now = datetime.datetime.now(datetime.UTC)
            run_id = f"{now:%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
            self.store.create(f"runs/{run_id}/recipe.json", json_bytes(resolved(recipe)))
            for other in others(self.store):
                say(notice(other))
            costs = self._work(engine, run_id)
        current = {work.output: work.fingerprint for work in self.works}
        snapshot = publish(self.store, [unit.unit_id for unit in self.units], current, clip_set)
        return self._result(run_id, snapshot.number, costs)

    def _work(self, engine: Engine, run_id: str) -> CostTable:
        totals = {work.output: sum(task.work == w for task in self.todo) for w, work in enumerate(self.works)}
        unit_bytes = {unit.unit_id: unit.num_bytes for unit in self.units}
        total_bytes = dict.fromkeys(totals, 0)
        for task in self.todo:
            total_bytes[self.works[task.work].output] += self.units[task.unit].num_bytes
        ledger = RunLedger(self.store, run_id, totals, works=self.works, unit_bytes=unit_bytes, total_bytes=total_bytes)
        with ledger:
            engine.run(self.store, self.units, self.works, self.todo, ledger, self.limits)
        return cost_table([ledger.heartbeat])

    def _result(self, run_id: str | None, snapshot: int, costs: CostTable | None) -> BuildResult:
        corpus = Corpus.open(self.store.uri, snapshot)
        outcomes, num_recordings, num_clips, audio_s, clip_s = Counter[str](), 0, 0, 0.0, 0.0
        for view in corpus.views():  # a unit at a time: a million hours hold hundreds of millions of clips
            outcomes.update(view.inputs(["outcome"])["outcome"].to_pylist())
            recordings = view.recordings(["num_samples", "sample_rate_hz"])
            clips = view.clips(["sample_rate_hz", "start_sample", "end_sample"])
            num_recordings, num_clips = num_recordings + recordings.num_rows, num_clips + clips.num_rows
            audio_s += _total_s(recordings["num_samples"], recordings["sample_rate_hz"])
            clip_s += _total_s(pc.subtract(clips["end_sample"], clips["start_sample"]), clips["sample_rate_hz"])
        return BuildResult(
            corpus_uri=self.store.uri,
            run_id=run_id,
            snapshot=snapshot,
            clip_set=corpus.clip_set,
            num_units=len(self.units),
            num_tasks_done=len(self.todo),
            num_tasks_reused=len(self.units) * len(self.works) - len(self.todo),
            num_inputs=sum(outcomes.values()),
            num_refused=outcomes.get("refused", 0),
            num_partial=outcomes.get("partial", 0),
            num_recordings=num_recordings,
            num_clips=num_clips,
            audio_s=audio_s,
            costs=costs,
            clip_s=clip_s,
        )


def _total_s(num_samples: pa.ChunkedArray, rates_hz: pa.ChunkedArray) -> float:
    return float(pc.sum(pc.divide(pc.cast(num_samples, "float64"), rates_hz)).as_py() or 0.0)
