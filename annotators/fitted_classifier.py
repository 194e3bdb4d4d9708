"""A classifier that ``stepwell corpus fit-classifier`` fitted, as a voice in one dimension of paralinguistics.

Reads the layers that it was fitted on and hears nothing: a dot product a clip.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from annotators.checkpoints import find_checkpoint, network_identity
from annotators.linear_classifier import ClassifierCard, LinearModel, feature_values, has_vectors, read_card, read_model
from annotators.paralinguistics_schema import CLASSIFIER_ADDS, classifier_row, expected_years
from manifests.contracts import ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint


class FittedClassifierConfig(AnnotatorConfigBase):
    """A fitted classifier. ``layers`` says how this recipe names the layers that it was fitted on, where it does otherwise."""

    kind: Literal["fitted_classifier"] = "fitted_classifier"
    model: str = Field(description="folder that `stepwell corpus fit-classifier` wrote")
    layers: dict[str, str] = Field(default={}, description="layer in the corpus of the labels -> layer of this recipe")

    def build(self) -> FittedClassifier:
        return FittedClassifier(self)


class FittedClassifier:
    """Annotator: value, confidence and posterior of one dimension.

    No value below the confidence at which the precision that was asked for was reached; no row where a vector is missing.
    """

    name = "fitted_classifier"
    version = "1"
    hears = Hearing.NOTHING
    adds = CLASSIFIER_ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=256 << 20)

    def __init__(self, config: FittedClassifierConfig) -> None:
        self.config = config
        self._card: ClassifierCard | None = None
        self._model: LinearModel | None = None

    @property
    def card(self) -> ClassifierCard:
        """What the folder says of itself. Raises ModelUnavailable."""
        if self._card is None:
            self._card = read_card(find_checkpoint(self.config.model).path)
        return self._card

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self._named(layer) for layer in self.card.layers)

    @property
    def fitted_on(self) -> dict[str, str]:
        return {self._named(layer): facts.fingerprint for layer, facts in self.card.layers.items()}

    def _loaded(self) -> LinearModel:
        """The weights, which are small: whoever asks for the fingerprint learns that they are whole. Raises ModelUnavailable."""
        if self._model is None:
            self._model = read_model(find_checkpoint(self.config.model).path, self.card)
        return self._model

    @property
    def models(self) -> tuple[ModelFact, ...]:
        found = find_checkpoint(self.config.model)
        return (ModelFact(found.name, found.revision, found.digest, self.card.licence),)

    def fingerprint(self) -> str:
        self._loaded()
        return fingerprint(self.name, self.version, network_identity(self.config), find_checkpoint(self.config.model).digest)

    def setup(self) -> None:
        self._loaded()

    def annotate(self, batch: ClipBatch) -> pa.Table:
        model, card = self._loaded(), self.card
        features_NV = feature_values({layer: batch.layers[self._named(layer)] for layer in card.layers}, card.features)
        posterior_NK = model.posterior(features_NV)
        source = os.path.basename(os.path.normpath(self.config.model))
        rows: list[dict[str, Any] | None] = []
        for probs_K, is_complete in zip(posterior_NK, has_vectors(features_NV, card.features), strict=True):
            posterior = dict(zip(card.labels, probs_K.tolist(), strict=True))
            years = expected_years(posterior, card.label_years)
            row = classifier_row(card.dimension, posterior, source, card.min_confidence, years)
            rows.append(row if is_complete else None)
        return batch.table(rows, self.adds)

    def _named(self, layer: str) -> str:
        return self.config.layers.get(layer, layer)
