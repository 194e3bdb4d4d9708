"""Layers of whole files, made by the parts as a build makes them, and classifiers on them with groups held out.

Shape legend: N items, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from annotators.linear_classifier import Feature, feature_values, layer_features
from annotators.paralinguistics import ParalinguisticsConfig
from annotators.paralinguistics_schema import vote
from annotators.prosody import ProsodyConfig
from annotators.rhythm import RhythmConfig
from annotators.signal import SignalConfig
from annotators.silero import SileroConfig
from annotators.speaker_embedding import SpeakerEmbeddingConfig
from annotators.spectrum import SpectrumConfig
from annotators.style import StyleConfig
from benchmarks.quality.figures import FEWEST_ITEMS, Figure, ratio
from benchmarks.quality.material import Item
from manifests.contracts import MODEL_RATE_HZ, ChannelAudio, ClipBatch, Hearing
from manifests.ids import clip_id
from manifests.schema import CLIPS
from pipeline.classifier_fit import Examples, fit
from pipeline.fit_classifier import layer_sizes

PARTS = {
    "speaker_embedding": SpeakerEmbeddingConfig,
    "spectrum": SpectrumConfig,
    "prosody": ProsodyConfig,
    "signal": SignalConfig,
    "rhythm": RhythmConfig,
    "style": StyleConfig,
    "paralinguistics": ParalinguisticsConfig,
}
ITEMS_AT_ONCE = 50


def layers_of(items: Sequence[Item], names: Sequence[str]) -> dict[str, pa.Table]:
    """Rows of the layers, one an item, each item being one clip in which silero hears the speech; with ``clip``."""
    vad, parts = SileroConfig().build(), {name: PARTS[name]().build() for name in names}
    found: dict[str, list[pa.Table]] = {"clip": [], **{name: [] for name in names}}
    for first in range(0, len(items), ITEMS_AT_ONCE):
        audio = [item.audio() for item in items[first : first + ITEMS_AT_ONCE]]
        rows = []
        for number, audio_S in enumerate(audio, first):
            recording = number.to_bytes(16, "big")
            spans = [heard.span._asdict() for heard in vad.segment(ChannelAudio(recording, 0, audio_S))]
            row = {
                "clip_id": clip_id(recording, 0, MODEL_RATE_HZ, 0, len(audio_S)),
                "recording_id": recording,
                "channel": 0,
                "sample_rate_hz": MODEL_RATE_HZ,
                "start_sample": 0,
                "end_sample": len(audio_S),
                "speech_samples": sum(span["end_sample"] - span["start_sample"] for span in spans),
                "overlap_samples": 0,
                "speech_spans": spans,
                "overlap_spans": [],
            }
            rows.append(row)
        layers = {"clip": pa.Table.from_pylist(rows, schema=CLIPS)}
        for name, part in parts.items():
            heard = [] if part.hears is Hearing.NOTHING else audio
            batch = ClipBatch(layers["clip"], heard, [MODEL_RATE_HZ] * len(heard), {read: layers[read] for read in part.reads})
            layers[name] = part.annotate(batch)
        for name, table in layers.items():
            found[name].append(table)
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


def features_of(layers: Mapping[str, pa.Table], names: Sequence[str]) -> list[Feature]:
    """What ``corpus fit-classifier --features`` would take of the layers (``layer`` or ``layer.column``)."""
    found = []
    for name in names:
        layer, _, column = name.partition(".")
        for feature in layer_features(layer, layers[layer].schema, column or None):
            vectors = [value for value in layers[layer][feature.column].to_pylist() if isinstance(value, list)]
            found.append(feature.model_copy(update={"width": len(vectors[0]) if vectors else 0}))
    return found


@dataclass(frozen=True)
class HeldOut:
    """What classifiers said of items whose groups they had not seen."""

    labels: tuple[str, ...]
    posterior: np.ndarray  # [N, K]
    is_stated: np.ndarray  # [N] bool: at or above the confidence that the fit chose on its own groups
    years: np.ndarray  # [N] expected ages; NaN where the labels have none
    answers: np.ndarray  # [N] str, most probable labels

    def hits(self, examples: Examples) -> np.ndarray:
        """Bool ``[N]``: the most probable label is the right one."""
        return np.asarray(self.answers == examples.labels)

    def stated(self, what: str, examples: Examples, items: str, note: str) -> list[Figure]:
        """Coverage, and precision of what is stated where that is enough for a claim; intervals over the groups."""
        hits, stated = self.hits(examples), self.is_stated
        precision = f"{what}, precision of what is stated"
        if stated.sum() < FEWEST_ITEMS:
            too_few = Figure(precision, None, None, None, int(stated.sum()), "clips", note=f"{note}; too few for a claim")
            return [over_groups(f"{what}, coverage", stated, examples.groups, items, note), too_few]
        return [
            over_groups(f"{what}, coverage", stated, examples.groups, items, note),
            over_groups(precision, hits[stated], examples.groups[stated], items, f"{note}; {stated.sum()} clips"),
        ]


def voted(voters: Sequence[HeldOut]) -> HeldOut:
    """What ``paralinguistics`` makes of classifiers with the same labels: their mean posterior; nothing is stated here."""
    labels = voters[0].labels
    rows = zip(*(voter.posterior.tolist() for voter in voters), strict=True)
    means = [vote([dict(zip(labels, probs, strict=True)) for probs in row]) for row in rows]
    posterior_NK = np.array([[mean[label] for label in labels] for mean in means])
    number, answers_N = len(posterior_NK), np.array(labels)[posterior_NK.argmax(axis=1)]
    return HeldOut(labels, posterior_NK, np.zeros(number, bool), np.full(number, np.nan), answers_N)


def over_groups(name: str, hits: np.ndarray, groups: np.ndarray, items: str, note: str) -> Figure:
    """Share of clips that hit, with the interval over the groups: clips of one speaker are not independent."""
    names = sorted(set(groups.tolist()))
    return ratio(name, [hits[groups == one].sum() for one in names], [(groups == one).sum() for one in names], items, note)


def examples_of(
    layers: Mapping[str, pa.Table], names: Sequence[str], labels: np.ndarray, groups: np.ndarray, years: np.ndarray | None = None
) -> Examples:
    """Examples as the verb makes them from a corpus."""
    features = features_of(layers, names)
    return Examples(feature_values(layers, features), labels, groups, layer_sizes(features), years)


def held_out(examples: Examples, folds: Sequence[np.ndarray], precision: float, fewest_items: int) -> HeldOut:
    """A fit for each fold on all other groups, each with folds of its own inside; ``folds`` are indices held out.

    ``fewest_items`` is below the verb's: nothing is claimed here of a label with fewer than 30 items.
    """
    labels = tuple(sorted(set(examples.labels.tolist())))
    posterior_NK = np.zeros((len(examples), len(labels)))
    is_stated_N, years_N = np.zeros(len(examples), bool), np.full(len(examples), np.nan)
    for held in folds:
        is_fitted_N = np.ones(len(examples), bool)
        is_fitted_N[held] = False
        fitted = fit(examples.where(is_fitted_N), precision, fewest_items)
        posterior_NK[held] = fitted.model.posterior(examples.features[held])
        if fitted.min_confidence is not None:
            is_stated_N[held] = posterior_NK[held].max(axis=1) >= fitted.min_confidence
        if fitted.label_years:
            years_N[held] = posterior_NK[held] @ np.array([fitted.label_years[label] for label in labels])
    return HeldOut(labels, posterior_NK, is_stated_N, years_N, np.array(labels)[posterior_NK.argmax(axis=1)])
