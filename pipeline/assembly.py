"""From a recipe to its works: what runs, in the order of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from manifests.contracts import FACTS, Annotator, FittedAnnotator
from manifests.errors import RequestError
from manifests.gates import CLIP_COLUMNS, AnnotatorConfigBase, ColumnGate
from pipeline.annotate_work import AnnotateWork
from pipeline.recipe import BuildRecipe
from pipeline.recording_works import ClipWork, IngestWork, SegmentWork
from pipeline.works import Work


def make_works(recipe: BuildRecipe) -> list[Work]:
    """The works of a recipe, each after what it reads. Raises ModelUnavailable where a part's weights are not here."""
    ingest = IngestWork(recipe.store)
    works: list[Work] = [ingest]
    spans: dict[str, str] = {}
    gates = {name: config.when for name, config in recipe.segmenters.items()}
    for name in _ordered(recipe.segmenters, {name: (gate.spans,) for name, gate in gates.items() if gate}):
        segmenter, gate = recipe.segmenters[name].build(), gates[name]
        works.append(SegmentWork(name, segmenter, ingest.fingerprint, gate, spans[gate.spans] if gate else None))
        spans[name] = works[-1].fingerprint
    clips = ClipWork(recipe.clip_set, ingest.fingerprint, spans)
    works.append(clips)
    works += annotate_works(recipe.annotators, clips.clip_set, ingest.fingerprint, clips.fingerprint, {})
    there = {work.resources.pool for work in works}
    if unknown := sorted(recipe.pools.keys() - there):
        raise RequestError(f"pools.{unknown[0]}: no part is in that pool; pools are {', '.join(sorted(there))}")
    return works


def annotate_works(
    configs: Mapping[str, AnnotatorConfigBase], clip_set: str, ingest: str, clips: str, known: Mapping[str, str]
) -> list[Work]:
    """Works of annotators, each after the layers that it and its gate read; ``known`` layers are there already."""
    annotators: dict[str, Annotator] = {name: config.build() for name, config in configs.items()}  # type: ignore[attr-defined]
    reads = {name: [*_layers(part.reads), *_gate_layers(configs[name].when)] for name, part in annotators.items()}
    fingerprints, adds = dict(known), {name: part.adds for name, part in annotators.items()}
    works: list[Work] = []
    for name in _ordered(annotators, reads):
        gate = configs[name].when
        for read in reads[name]:
            if read not in fingerprints:
                there = ", ".join(fingerprints) or "none"
                raise RequestError(f"layer {name!r} reads layer {read!r}, which is not there; layers are {there}")
        if gate:
            _check_gate(name, gate, adds)
        needs = {read: fingerprints[read] for read in reads[name]}
        _check_fitted(name, annotators[name], needs)
        works.append(AnnotateWork(name, annotators[name], clip_set, ingest, clips, needs, gate))
        fingerprints[name] = works[-1].fingerprint
    return works


def _layers(reads: Iterable[str]) -> list[str]:
    return [name for name in reads if name not in FACTS]


def _gate_layers(gate: ColumnGate | None) -> list[str]:
    return [gate.layer] if gate and gate.layer else []


def _check_gate(name: str, gate: ColumnGate, adds: Mapping[str, pa.Schema]) -> None:
    """The gate's column is there, as far as the recipe tells: a layer that is there already is checked when it is read."""
    known = {"clip": pa.schema([(column, pa.float64()) for column in CLIP_COLUMNS]), **adds}
    layer = gate.column.split(".")[0]
    if layer in known:
        try:
            gate.check(known[layer])
        except RequestError as error:
            raise RequestError(f"annotators.{name}.when: {error}") from None


def _check_fitted(name: str, annotator: Annotator, layers: Mapping[str, str]) -> None:
    """Raises RequestError where a layer is not the one that the annotator was fitted on."""
    for read, fitted_on in annotator.fitted_on.items() if isinstance(annotator, FittedAnnotator) else ():
        if layers[read] != fitted_on:
            raise RequestError(
                f"layer {name!r} was fitted on layer {read!r} with fingerprint {fitted_on}; here it is {layers[read]}: make it by the recipe "
                "of the labelled corpus (store, segmenters and the layer's own part), or fit again on a corpus made by this one"
            )


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
