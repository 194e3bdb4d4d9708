"""A calibrated linear classifier over stored features, as a folder: ``model.safetensors`` and ``classifier.json``. No pickle.

Shape legend: N clips, V feature values, K labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from annotators.paralinguistics_schema import Dimension
from manifests.errors import ModelUnavailable
from manifests.recipes import RecipeModel

WEIGHTS, CARD = "model.safetensors", "classifier.json"
FORMAT_VERSION: Literal[1] = 1


class Feature(RecipeModel):
    """One column of a layer: a number, or a vector of ``width`` numbers."""

    layer: str
    column: str
    width: int = Field(ge=0)  # 0: a number

    @property
    def num_values(self) -> int:
        return self.width or 1


class FeatureLayer(RecipeModel):
    """The layer that a classifier was fitted on: another one of the same name may mean something else."""

    fingerprint: str  # of the layer in the corpus of the labels
    part: str | None  # name of the annotator that made it
    version: str | None
    models: list[dict[str, str | None]]  # manifests.contracts.ModelFact


class LabelFigures(RecipeModel):
    """A label among the items that were held out."""

    num_items: int
    num_groups: int
    recall: float | None  # None: fewer items than a claim needs


class HeldOutFigures(RecipeModel):
    """How the classifier did on items of groups that it was not fitted on; strength and temperature were chosen on the same."""

    num_items: int
    num_groups: int
    num_folds: int
    accuracy: float
    average_recall: float  # unweighted mean over the labels
    log_loss: float  # nats
    coverage: float  # share of items that get a value
    precision: float  # of those values
    mean_age_error_years: float | None
    labels: dict[str, LabelFigures]


class ClassifierCard(RecipeModel):
    """What ``classifier.json`` says: all but the weights."""

    format_version: Literal[1] = FORMAT_VERSION
    dimension: Dimension
    labels: tuple[str, ...]
    label_years: dict[str, float]  # mean age of a label's items; empty but for ages given in years
    features: tuple[Feature, ...]
    layers: dict[str, FeatureLayer]
    temperature: float = Field(gt=0)
    min_confidence: float = Field(ge=0, le=1)  # no value below
    asked_precision: float
    strength: float  # of the L2 penalty: scikit-learn's C
    licence: str | None  # of the labels and of the audio that they are about
    held_out: HeldOutFigures


@dataclass(frozen=True)
class LinearModel:
    """Standardise, multiply, divide by the temperature, softmax; a missing value is taken for the mean."""

    mean: np.ndarray  # [V]
    scale: np.ndarray  # [V]
    weight: np.ndarray  # [K, V]
    bias: np.ndarray  # [K]
    temperature: float = 1.0

    def logits(self, features_NV: np.ndarray) -> np.ndarray:
        """Float64 ``[N, K]`` before the temperature."""
        standard_NV = np.nan_to_num((features_NV - self.mean) / self.scale, nan=0.0)
        # Row by row: a product over a batch rounds differently from the same rows alone.
        return np.array([self.weight @ row_V for row_V in standard_NV]).reshape(-1, len(self.bias)) + self.bias

    def posterior(self, features_NV: np.ndarray) -> np.ndarray:
        """Float64 ``[N, K]``, rows sum to 1."""
        return softmax(self.logits(features_NV) / self.temperature)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    raised_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return raised_NK / raised_NK.sum(axis=1, keepdims=True)


def layer_features(name: str, schema: pa.Schema, column: str | None = None) -> list[Feature]:
    """What of a layer is a feature: the column asked for, else its vectors, else its floating numbers; widths still 0."""
    numbers = [f.name for f in schema if pa.types.is_floating(f.type)]
    vectors = [f.name for f in schema if pa.types.is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    wanted = [column] if column else vectors or numbers
    return [Feature(layer=name, column=c, width=0) for c in wanted if c in (*numbers, *vectors)]


def feature_values(layers: Mapping[str, pa.Table], features: Sequence[Feature]) -> np.ndarray:
    """Float64 ``[N, V]`` of the rows of layers, NaN where null. Raises ModelUnavailable where a vector has another width."""
    columns = []
    for feature in features:
        values = layers[feature.layer][feature.column].to_pylist()
        blank = [np.nan] * feature.num_values
        rows = [blank if value is None else value if feature.width else [value] for value in values]
        if wrong := next((row for row in rows if len(row) != feature.num_values), None):
            raise ModelUnavailable(
                f"layer {feature.layer!r}: {feature.column} holds vectors of {len(wrong)}, the classifier was fitted on "
                f"{feature.num_values}; make the layer as it was then, or fit again"
            )
        columns.append(np.array(rows, np.float64).reshape(len(rows), feature.num_values))
    return np.concatenate(columns, axis=1)


def has_vectors(features_NV: np.ndarray, features: Sequence[Feature]) -> np.ndarray:
    """Bool ``[N]``: rows in which every vector is there and, without vectors, any number."""
    is_vector_V = np.repeat([feature.width > 0 for feature in features], [feature.num_values for feature in features])
    known_NV = ~np.isnan(features_NV)
    return known_NV[:, is_vector_V].all(axis=1) & known_NV.any(axis=1)


def save_classifier(folder: str, card: ClassifierCard, model: LinearModel) -> None:
    """Write the two files into a folder, which is made; arrays as float64."""
    from safetensors.numpy import save_file

    os.makedirs(folder, exist_ok=True)
    arrays = {"mean": model.mean, "scale": model.scale, "weight": model.weight, "bias": model.bias}
    save_file({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}, os.path.join(folder, WEIGHTS))
    with open(os.path.join(folder, CARD), "w", encoding="utf-8") as file:
        json.dump(card.model_dump(mode="json"), file, indent=1, ensure_ascii=False)


def read_card(folder: str) -> ClassifierCard:
    """What ``classifier.json`` of the folder says. Raises ModelUnavailable where it is missing, damaged or newer."""
    try:
        with open(os.path.join(folder, CARD), encoding="utf-8") as file:
            card = ClassifierCard.model_validate_json(file.read())
    except FileNotFoundError as error:
        raise ModelUnavailable(
            f"classifier {folder!r} has no {CARD}; give a folder that `stepwell corpus fit-classifier` wrote"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelUnavailable(
            f"classifier {folder!r}: {CARD} is not of this version or damaged "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "fit it again"
        ) from error
    return card


def read_model(folder: str, card: ClassifierCard) -> LinearModel:
    """The weights of the folder. Raises ModelUnavailable where they do not go with the card."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    num_values = sum(feature.num_values for feature in card.features)
    shapes = {
        "mean": (num_values,),
        "scale": (num_values,),
        "weight": (len(card.labels), num_values),
        "bias": (len(card.labels),),
    }
    try:
        arrays = load_file(os.path.join(folder, WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(f"classifier {folder!r}: {WEIGHTS} cannot be read ({error}); fit it again") from error
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else None
        if found != shape:
            raise ModelUnavailable(f"classifier {folder!r}: {name} has shape {found}, its card says {shape}; fit it again")
    return LinearModel(arrays["mean"], arrays["scale"], arrays["weight"], arrays["bias"], card.temperature)
