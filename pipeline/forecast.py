"""``corpus build --dry-run --sample``: a sample is really built, and the whole source predicted from it.

What a unit costs whatever it holds is measured apart, on a tenth of a second of silence, and so is the loading of models: a
small sample in small units would count both too often. The rest grows with the bytes of the inputs, class by class of their
size. Intervals are 90 % of a bootstrap that draws the units of each class again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import soundfile

from manifests.commits import read_commit
from manifests.console import aligned, counted, duration, hours, number, volume
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.snapshots import INGEST
from manifests.store import Store
from pipeline.build import build
from pipeline.engines import Engine
from pipeline.estimates import DRAWS, Estimate, Totals, totals
from pipeline.inputs import Input
from pipeline.ledger import read_ledger
from pipeline.pack import pack
from pipeline.rates import Rates, measured_rates, working_cpu_s
from pipeline.recipe import BuildRecipe, PackRecipe
from pipeline.sample import SizeClass, draw, sample_size
from pipeline.simulation import Cluster, pace, play
from pipeline.sources import ColumnMap, list_inputs
from pipeline.units import Plans, Unit, UnitsConfig, claim_plan, cut_units

PLAYED_UNITS = 2000  # a longer build is predicted in closed form
PACK_RATE_HZ = 16_000
BY_NUMBER = "num_refused"  # grows with the number of inputs, not with their bytes


@dataclass(frozen=True)
class PartForecast:
    """One part of the build."""

    part: str
    core_h: Estimate
    gpu_h: Estimate


@dataclass(frozen=True)
class Forecast:
    """A build of the whole source, as if nothing of it was committed."""

    num_inputs: int
    num_bytes: int
    num_units: int
    num_sampled: int
    sampled_audio_h: float
    num_classes: int
    audio_h: Estimate
    num_refused: Estimate
    clip_h: Estimate
    kept_h: Estimate | None  # after the filters of a pack recipe
    parts: list[PartForecast]
    core_h: Estimate
    gpu_h: Estimate
    loading_core_h: float  # models, once in every worker; in no other figure of CPU time
    num_cpus: int
    wall_s: Estimate
    audio_bytes: Estimate
    table_bytes: Estimate
    pack_bytes: Estimate
    num_shards: Estimate
    method: str

    def lines(self) -> list[str]:
        """The forecast for people."""
        rows = [["predicted", "", "90 % within"], _row("audio in", self.audio_h, hours), _row("inputs refused", self.num_refused)]
        rows += [_row("audio in clips", self.clip_h, hours)]
        rows += [_row("audio in the pack", self.kept_h, hours)] if self.kept_h else []
        rows += [_row(f"CPU time of {part.part}", part.core_h, hours) for part in self.parts]
        rows += [_row("CPU time", self.core_h, hours), ["CPU time of loading models", hours(self.loading_core_h), ""]]
        if self.gpu_h.high > 0:
            rows += [_row(f"GPUs of {part.part}", part.gpu_h, hours) for part in self.parts if part.gpu_h.high > 0]
            rows.append(_row("GPUs", self.gpu_h, hours))
        rows.append(_row(f"wall time on {counted(self.num_cpus, 'CPU')}", self.wall_s, duration))
        rows += [_row("stored audio", self.audio_bytes, volume), _row("tables", self.table_bytes, volume)]
        rows += [_row("pack", self.pack_bytes, volume), _row("shards", self.num_shards)]
        return [
            f"{counted(self.num_inputs, 'input')}, {volume(self.num_bytes)}, in {counted(self.num_units, 'unit')}",
            f"measured: {counted(self.num_sampled, 'input')} of {counted(self.num_classes, 'size class', 'size classes')}, "
            f"{hours(self.sampled_audio_h)}",
            *aligned(rows),
            self.method,
        ]


def forecast(
    sources: Sequence[str],
    recipe: BuildRecipe,
    asked: str,
    engine: Engine | None = None,
    *,
    columns: ColumnMap | None = None,
    pack_recipe: PackRecipe | None = None,
    num_cpus: int | None = None,
    num_gpus: float = 0.0,
    seed: int = 0,
) -> Forecast:
    """Build a sample (``0.1%`` or a number of inputs) in a temporary place and predict the whole. Writes nothing else."""
    inputs = list_inputs(sources, columns)
    classes = draw(inputs, sample_size(asked, len(inputs)), recipe.units, seed)
    units = cut_units(inputs, recipe.units)
    with tempfile.TemporaryDirectory(prefix="stepwell-sample-") as folder:
        corpus_uri = os.path.join(folder, "corpus")
        silent = _silent_unit(folder, sum(len(size.units) for size in classes))
        claim_plan(Store(corpus_uri), Plans(0, []), lambda _: [*(unit for size in classes for unit in size.units), silent])
        run_id = build([], corpus_uri, recipe, engine).run_id
        assert run_id is not None
        facts = _unit_facts(Corpus.open(corpus_uri), run_id)
        if pack_recipe is not None:
            _add_pack(facts, corpus_uri, os.path.join(folder, "pack"), pack_recipe)
        rates = measured_rates(corpus_uri)
    overhead = {name: value for name, value in facts.pop(silent.unit_id).items() if name.startswith(PER_UNIT)}
    if not any(unit["audio_h"] for unit in facts.values()):
        raise RequestError(f"none of the {len(facts)} units of the sample holds audio; take a larger --sample")
    found = totals(classes, facts, overhead, len(units), [BY_NUMBER])
    return _forecast(inputs, units, classes, facts, found, rates, pack_recipe, Cluster(num_cpus or os.cpu_count() or 1, num_gpus))


PER_UNIT = ("cpu_s ", "wall_s ", "gpu_s ", "audio_bytes", "table_bytes")  # quantities of which every unit costs some


def _silent_unit(folder: str, place: int) -> Unit:
    path = os.path.join(folder, "silence.wav")
    soundfile.write(path, np.zeros(PACK_RATE_HZ // 10, dtype=np.float32), PACK_RATE_HZ)
    return cut_units([Input(path, os.path.getsize(path), "")], UnitsConfig(), place)[0]


def _unit_facts(corpus: Corpus, run_id: str) -> dict[str, dict[str, float]]:
    """Unit -> quantity -> what was measured."""
    facts: dict[str, dict[str, float]] = {}
    for view in corpus.views():
        recordings, clips = view.recordings(), view.clips()
        commit = read_commit(corpus.store, INGEST, corpus.fingerprint(INGEST), view.unit_id)
        assert commit is not None
        audio_bytes = sum(fact.num_bytes for role, fact in commit.objects.items() if role.startswith("audio"))
        stored_s = sum(
            row["num_channels"] * row["num_samples"] / row["sample_rate_hz"] * row["sample_rate_hz"] / PACK_RATE_HZ
            for row in recordings.select(["num_channels", "num_samples", "sample_rate_hz"]).to_pylist()
        )
        clip_h = sum((row["end_sample"] - row["start_sample"]) / row["sample_rate_hz"] for row in clips.to_pylist()) / 3600
        facts[view.unit_id] = {
            "audio_h": sum(row["num_samples"] / row["sample_rate_hz"] for row in recordings.to_pylist()) / 3600,
            "clip_h": clip_h,
            BY_NUMBER: pc.sum(pc.equal(view.inputs()["outcome"], "refused")).as_py() or 0,
            "audio_bytes": audio_bytes,
            # FLAC at the pack's rate, clip by clip, as the stored audio came out.
            "pack_bytes": audio_bytes * clip_h * 3600 / stored_s if stored_s else 0.0,
            "table_bytes": -audio_bytes,
        }
    first: set[tuple[str, str]] = set()
    for row in sorted(read_ledger(corpus.store, run_id).to_pylist(), key=lambda row: row["started_at_s"]):
        unit, part, is_loading = facts[row["unit"]], row["part"], (row["worker"], row["part"]) not in first
        first.add((row["worker"], row["part"]))
        unit["table_bytes"] += row["num_bytes"]
        unit[f"cpu_s {part}"] = working_cpu_s(row) if is_loading else row["cpu_s"]
        unit[f"wall_s {part}"] = row["wall_s"] - row["setup_s"] * is_loading
        unit[f"gpu_s {part}"] = row["gpu_s"] * unit[f"wall_s {part}"] / row["wall_s"]
    return facts


def _add_pack(facts: dict[str, dict[str, float]], corpus_uri: str, out: str, recipe: PackRecipe) -> None:
    """Hours and bytes of the documents that a pack of the sample holds, to the units of their recordings."""
    pack(corpus_uri, out, recipe)
    made, corpus = Pack.open(out), Corpus.open(corpus_uri)
    unit_of = {r: view.unit_id for view in corpus.views() for r in view.recordings(["recording_id"])["recording_id"].to_pylist()}
    for unit in facts.values():
        unit |= {"kept_h": 0.0, "pack_bytes": 0.0}
    for split in made.splits:
        for row in made.documents(split).to_pylist():
            unit = facts[unit_of[row["turns"][0]["recording_id"]]]
            unit["kept_h"] += (row["num_samples"] or 0) / made.sample_rate_hz / 3600
            unit["pack_bytes"] += row["num_bytes"]


def _forecast(
    inputs: Sequence[Input],
    units: Sequence[Unit],
    classes: Sequence[SizeClass],
    facts: Mapping[str, Mapping[str, float]],
    found: Totals,
    rates: Rates,
    pack_recipe: PackRecipe | None,
    cluster: Cluster,
) -> Forecast:
    names = [part.part for part in rates.parts]
    core_s = found.of(*(f"cpu_s {part}" for part in names))
    work_s = found.of(*(f"wall_s {part}" for part in names))
    audio_h, pack_bytes = found.of("audio_h"), found.of("pack_bytes")
    wall_s, loading_s = _wall_s(rates, found, units, cluster)
    shard_bytes = (pack_recipe or PackRecipe(name="")).shard_bytes
    sampled_units = sum(len(size.units) for size in classes)
    return Forecast(
        num_inputs=len(inputs),
        num_bytes=sum(item.num_bytes for item in inputs),
        num_units=len(units),
        num_sampled=sum(size.num_drawn for size in classes),
        sampled_audio_h=sum(unit["audio_h"] for unit in facts.values()),
        num_classes=len(classes),
        audio_h=audio_h,
        num_refused=found.of(BY_NUMBER),
        clip_h=found.of("clip_h"),
        kept_h=found.of("kept_h") if pack_recipe else None,
        parts=[
            PartForecast(part, found.of(f"cpu_s {part}").times(1 / 3600), found.of(f"gpu_s {part}").times(1 / 3600))
            for part in names
        ],
        core_h=core_s.times(1 / 3600),
        gpu_h=found.of(*(f"gpu_s {part}" for part in names)).times(1 / 3600),
        loading_core_h=loading_s / 3600,
        num_cpus=cluster.num_cpus,
        wall_s=work_s.times(wall_s / max(work_s.value, 1e-9)),
        audio_bytes=found.of("audio_bytes"),
        table_bytes=found.of("table_bytes"),
        pack_bytes=pack_bytes,
        num_shards=Estimate(*(float(np.ceil(x / shard_bytes)) for x in (pack_bytes.value, pack_bytes.low, pack_bytes.high))),
        method=f"by bytes within each size class; intervals from {DRAWS} bootstrap draws of the sample's {sampled_units} units, "
        "which say nothing of what the sample does not hold; the pack "
        + (f"by recipe {pack_recipe.name!r}" if pack_recipe else "is all clips, unfiltered"),
    )


def _wall_s(rates: Rates, found: Totals, units: Sequence[Unit], cluster: Cluster) -> tuple[float, float]:
    """(wall seconds of the build on the cluster, worker seconds of loading models)."""
    audio_s = found.of("audio_h").value * 3600
    a_byte = audio_s / max(1, sum(unit.num_bytes for unit in units))
    of_source = rates.model_copy(
        update={
            "parts": tuple(
                part.model_copy(update={"wall_s": found.of(f"wall_s {part.part}").value / max(audio_s, 1e-9)})
                for part in rates.parts
            ),
            "unit_audio_s": tuple(unit.num_bytes * a_byte for unit in units),
        }
    )
    steady = pace(of_source, cluster)
    setup_s = {name: sum(part.setup_s for part in rates.parts if part.pool == name) for name in steady.most_workers}
    if len(units) <= PLAYED_UNITS:
        played = play(of_source, of_source.unit_audio_s, cluster)
        return played.wall_s, sum(setup_s[name] * count for name, count in played.num_workers.items())
    return audio_s / steady.speed + steady.ramp_s, sum(setup_s[name] * steady.most_workers[name] for name in setup_s)


def _row(name: str, estimate: Estimate, said: Any = number) -> list[str]:
    if estimate.low == estimate.high == estimate.value:
        return [name, said(estimate.value), ""]
    return [name, said(estimate.value), f"{said(estimate.low)} to {said(estimate.high)}"]
