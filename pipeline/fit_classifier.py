"""``corpus fit-classifier``: labels and the stored layers of a corpus become a small calibrated classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from annotators.linear_classifier import (
    ClassifierCard,
    Feature,
    FeatureLayer,
    HeldOutFigures,
    LabelFigures,
    feature_values,
    has_vectors,
    layer_features,
    save_classifier,
)
from annotators.paralinguistics_schema import Dimension, age_label, is_label, label_rule
from manifests.console import counted
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.remote import open_filesystem, os_errors, refusal
from manifests.snapshots import layer_output
from pipeline.classifier_fit import FEWEST_ITEMS, Examples, Fit, fit
from pipeline.columns import AUDIO_COLUMNS
from pipeline.inputs import beside, folder_of
from pipeline.tables import read_jsonl

# A group that the inputs tell, where the labels do not: name -> column of INPUTS.
INPUT_GROUPS = {"speaker": "speaker_label", "source": "source", "recording": "recording_id"}


@dataclass(frozen=True)
class FitResult:
    """What was fitted and where it lies."""

    out: str
    dimension: str
    min_confidence: float
    num_unlabelled: int  # clips of recordings without a label
    num_incomplete: int  # labelled clips without features
    held_out: HeldOutFigures

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "held_out": self.held_out.model_dump(mode="json")}

    def lines(self) -> list[str]:
        """The result for people."""
        h = self.held_out
        lines = [
            f"classifier of {self.dimension} at {self.out}: fitted on {_of_groups(h)}; left out: "
            f"{counted(self.num_incomplete, 'labelled clip')} without features, {counted(self.num_unlabelled, 'clip')} without a label",
            f"held out, {h.num_folds} folds: accuracy {h.accuracy:.1%}, average recall {h.average_recall:.1%}, log loss {h.log_loss:.2f}",
            f"from a confidence of {self.min_confidence:.2f} on it states a label: {h.coverage:.1%} of clips, {h.precision:.1%} of them right",
        ]
        if h.mean_age_error_years is not None:
            lines.append(f"mean error of the age: {h.mean_age_error_years:.1f} years")
        for label, figures in h.labels.items():
            recall = "too few for a claim" if figures.recall is None else f"recall {figures.recall:.1%}"
            lines.append(f"  {label}: {_of_groups(figures)}, {recall}")
        return lines


def _of_groups(figures: HeldOutFigures | LabelFigures) -> str:
    return f"{counted(figures.num_items, 'clip')} of {counted(figures.num_groups, 'group')}"


@dataclass(frozen=True)
class Label:
    """What the labels say of one recording."""

    label: str
    years: float | None
    group: str | None
    licence: str | None
    where: str  # how errors call it


def fit_classifier(
    corpus_uri: str,
    labels: str,
    dimension: Dimension,
    features: Sequence[str],
    out: str,
    *,
    group: str = "speaker",
    label_key: str = "label",
    precision: float = 0.9,
    fewest_items: int = FEWEST_ITEMS,
) -> FitResult:
    """Fit a classifier of ``dimension`` and write it to the folder ``out``.

    ``labels`` is JSONL: each row names an input (``uri``, ``path`` or ``audio``, beside the file) or a ``recording_id`` in hex, and has
    the label under ``label_key``; its clips are labelled by it. ``features`` are layers, or columns as ``layer.column``. A corpus of labels
    fits in memory.
    Raises RequestError for what is asked wrongly, and WorkError where no confidence reaches the precision.
    """
    if os.path.exists(out) and os.listdir(out):
        raise RequestError(f"{out!r} is there and not empty; a classifier is never written over, give another --out")
    corpus = Corpus.open(corpus_uri)
    wanted = _wanted_features(corpus, features)
    inputs = corpus.inputs().to_pylist()
    labelled = _labels_by_recording(_read_labels(labels, dimension, label_key, group), inputs, group)
    examples, used, num_unlabelled, num_incomplete = _examples(corpus, wanted, labelled)
    fitted = fit(examples, precision, fewest_items)
    if fitted.min_confidence is None:
        best = fitted.figures(examples)
        raise WorkError(
            f"precision {precision:g} is not reached at any confidence (accuracy {best.accuracy:.1%} on {best.num_items} clips held out, "
            f"{FEWEST_ITEMS} values at least); ask for less with --precision, or add labels or features"
        )
    licences = {row["licence"] for row in inputs if row["recording_id"] in used} | {labelled[r].licence for r in used}
    licence = " AND ".join(sorted(filter(None, licences))) or None
    layers = {layer: _layer_facts(corpus, layer) for layer in dict.fromkeys(feature.layer for feature in wanted)}
    card = card_of(dimension, wanted, layers, fitted, examples, precision, licence)
    save_classifier(out, card, fitted.model)
    return FitResult(out, dimension, card.min_confidence, num_unlabelled, num_incomplete, card.held_out)


def _wanted_features(corpus: Corpus, names: Sequence[str]) -> list[Feature]:
    """Columns of the layers that are asked for, with their widths. Raises RequestError for one that is not there."""
    found: list[Feature] = []
    for name in names:
        layer, _, column = name.partition(".")
        if layer not in corpus.layers():
            raise RequestError(
                f"feature layer {layer!r} is not in corpus {corpus.store.uri!r}; it has {', '.join(corpus.layers()) or 'none'}: mend the name, "
                f"or add the layer with `stepwell corpus annotate {corpus.store.uri} --layer NAME --recipe RECIPE`"
            )
        table = corpus.layer(layer)
        columns = layer_features(layer, table.schema, column or None)
        if not columns:
            raise RequestError(
                f"feature {name!r} is no column of numbers or vectors; {layer} has {', '.join(table.column_names)}"
            )
        found += [feature.model_copy(update={"width": _width(table[feature.column])}) for feature in columns]
    return found


def _width(values: pa.ChunkedArray) -> int:
    """Length of the first vector; 0 for a column of numbers."""
    if not pa.types.is_list(values.type):
        return 0
    return next((len(value) for value in values.to_pylist() if value is not None), 1)


def _read_labels(place: str, dimension: Dimension, key: str, group: str) -> list[tuple[str | bytes, Label]]:
    """(uri or recording id, label) of each row that has a label."""
    fs, path = open_filesystem(place)
    try:
        with os_errors():
            data = fs.cat_file(path)
    except OSError as error:
        raise refusal(f"labels {place!r}", error) from error
    found: list[tuple[str | bytes, Label]] = []
    for number, row in read_jsonl(data, place):
        where, value = f"labels {place!r} line {number}", row.get(key)
        if value is None:
            continue
        named = next((row[name] for name in AUDIO_COLUMNS if row.get(name)), None)
        if named is None and "recording_id" not in row:
            raise RequestError(f"{where} names nothing; give {' or '.join(AUDIO_COLUMNS)} of an input, or its recording_id")
        label, years = _label(dimension, value, where)
        own_group = None if row.get(group) is None else str(row[group])
        what = beside(folder_of(fs, path), str(named)) if named is not None else _recording_id(row["recording_id"], where)
        found.append((what, Label(label, years, own_group, row.get("licence"), where)))
    if not found:
        raise RequestError(f"labels {place!r}: no row has {key!r}; name the key of the label with --label")
    return found


def _recording_id(value: Any, where: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{where}: recording_id {value!r} is not hex; give it as `stepwell manifest show` prints it"
        ) from error


def _label(dimension: Dimension, value: Any, where: str) -> tuple[str, float | None]:
    """(label, years); an age may be given in years. Raises RequestError for what is no label of the dimension."""
    if dimension == "age" and isinstance(value, int | float):
        return age_label(float(value)), float(value)
    if not isinstance(value, str) or not is_label(dimension, value):
        years = ", or years" if dimension == "age" else ""
        raise RequestError(f"{where}: {value!r} is no label; {label_rule(dimension)}{years}")
    return value, None


def _labels_by_recording(
    rows: Sequence[tuple[str | bytes, Label]], inputs: Sequence[Mapping[str, Any]], group: str
) -> dict[bytes, Label]:
    """Recording -> its label, with the group filled in from the inputs where the labels have none.

    Raises RequestError for a label of no input, rows of one recording that differ, and a label without a group.
    """
    by_uri = {row["uri"]: row for row in inputs}
    by_recording = {row["recording_id"]: row for row in inputs if row["recording_id"]}
    found: dict[bytes, Label] = {}
    for what, label in rows:
        row = by_uri.get(what) if isinstance(what, str) else by_recording.get(what)
        if row is None:
            shown = what if isinstance(what, str) else what.hex()
            raise RequestError(
                f"{label.where}: {shown!r} is no input of the corpus; build the corpus from the files that are labelled"
            )
        recording = row["recording_id"]
        if recording is None:
            continue  # refused: there is nothing to learn from
        told = label.group or row.get(INPUT_GROUPS.get(group, ""))
        if told is None:
            raise RequestError(
                f"{label.where}: no {group!r} there and none with the input; folds must not share one: add the key, or name another with --group"
            )
        label = replace(label, group=told.hex() if isinstance(told, bytes) else str(told))
        _check_same(found.setdefault(recording, label), label, group)
    return found


def _check_same(first: Label, second: Label, group: str) -> None:
    """Raises RequestError where two rows say different things of one recording."""
    for name, known in (("label", "label"), ("years", "age in years"), ("group", group), ("licence", "licence")):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise RequestError(
                f"{second.where}: {known} {other!r} of a recording that {first.where} gives {one!r}; a recording has one: mend a row or take it out"
            )


def _examples(
    corpus: Corpus, features: Sequence[Feature], labelled: Mapping[bytes, Label]
) -> tuple[Examples, set[bytes], int, int]:
    """(labelled clips with features, their recordings, number of clips without a label, and of labelled ones without features)."""
    recordings = corpus.clips()["recording_id"].to_pylist()
    layers = {layer: corpus.layer(layer) for layer in dict.fromkeys(feature.layer for feature in features)}
    values_NV = feature_values(layers, features)
    has_label_N = np.array([recording in labelled for recording in recordings], bool)
    chosen_N = np.flatnonzero(has_label_N & has_vectors(values_NV, features))
    labels = [labelled[recordings[n]] for n in chosen_N]
    if not labels:
        raise RequestError("no labelled clip has features; annotate the corpus with the layers first, and label its own inputs")
    years = np.array([np.nan if label.years is None else label.years for label in labels])
    examples = Examples(
        values_NV[chosen_N],
        np.array([label.label for label in labels]),
        np.array([label.group for label in labels]),
        layer_sizes(features),
        None if np.isnan(years).any() else years,
    )
    num_unlabelled = int((~has_label_N).sum())
    return examples, {recordings[n] for n in chosen_N}, num_unlabelled, len(recordings) - num_unlabelled - len(chosen_N)


def layer_sizes(features: Sequence[Feature]) -> np.ndarray:
    """Int ``[V]``: how many values the layer of each value has, of the features together."""
    sizes: dict[str, int] = {}
    for feature in features:
        sizes[feature.layer] = sizes.get(feature.layer, 0) + feature.num_values
    return np.repeat([sizes[feature.layer] for feature in features], [feature.num_values for feature in features])


def card_of(
    dimension: Dimension,
    features: Sequence[Feature],
    layers: Mapping[str, FeatureLayer],
    fitted: Fit,
    examples: Examples,
    precision: float,
    licence: str | None,
) -> ClassifierCard:
    """What is written beside the weights of a fit that reached its precision."""
    assert fitted.min_confidence is not None
    return ClassifierCard(
        dimension=dimension,
        labels=fitted.labels,
        label_years=fitted.label_years,
        features=tuple(features),
        layers=dict(layers),
        temperature=fitted.model.temperature,
        min_confidence=fitted.min_confidence,
        asked_precision=precision,
        strength=fitted.strength,
        licence=licence,
        held_out=fitted.figures(examples),
    )


def _layer_facts(corpus: Corpus, layer: str) -> FeatureLayer:
    output = layer_output(corpus.clip_set, layer)
    part = corpus.part(output)
    return FeatureLayer(
        fingerprint=corpus.fingerprint(output),
        part=part.name if part else None,
        version=part.version if part else None,
        models=[asdict(model) for model in part.models] if part else [],
    )
