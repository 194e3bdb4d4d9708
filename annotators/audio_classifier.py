"""Any transformers audio classifier, by hub id or folder, as a voice in one dimension of paralinguistics.

Whisper, AST, wav2vec2, HuBERT, WavLM and their kin with a classification head. Windows are never padded to one another's
length: those that become features of one shape run together, so a value does not depend on what else is in the batch.

Shape legend: S samples, W windows, K labels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from annotators.checkpoints import Checkpoint, check_device, check_type, find_checkpoint, loading, network_identity
from annotators.fused_weights import fuse_weights
from annotators.paralinguistics_schema import (
    CLASSIFIER_ADDS,
    OTHER,
    Dimension,
    classifier_row,
    expected_years,
    is_label,
    label_rule,
    snake,
)
from annotators.silence import is_silent
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.errors import ModelUnavailable
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint

WHAT = "audio classifier"


class AudioClassifierConfig(AnnotatorConfigBase):
    """An audio classifier. ``labels`` maps what the model says to the dimension's labels.

    Without a mapping every label of the model, in lower snake case, must be one of the dimension's. With one, what it leaves
    out is counted under ``other``; where that wins and the dimension has no such label, the clip is abstained from.
    """

    kind: Literal["audio_classifier"] = "audio_classifier"
    dimension: Dimension = Field(description="dimension of paralinguistics that the classifier speaks for")
    model: str = Field(description="folder or hub id of a transformers checkpoint")
    revision: str | None = Field(default=None, description="commit of the hub id, so that the fingerprint pins the weights")
    may_download: bool = Field(default=False, description="fetch a hub id that is not in the cache")
    labels: dict[str, str] | None = Field(
        default=None, description="label of the model -> label of the dimension; null: as they are"
    )
    label_years: dict[str, float] = Field(default={}, description="only of the dimension age: label of the model -> age in years")
    min_confidence: float | None = Field(default=None, gt=0, le=1, description="abstain where the best label is less probable")
    multi_label: bool = Field(
        default=False, description="labels do not exclude one another (AudioSet): sigmoid instead of softmax"
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="what the logits are divided by, so that posteriors are as sure as they are right (Guo et al. 2017)",
    )
    min_s: float = Field(default=0.5, ge=0.1, description="shorter clips are abstained from")
    max_s: float = Field(
        default=10.0, gt=0, description="longer clips are heard in windows of this length, whose posteriors are averaged"
    )
    batch_size: int = Field(default=16, ge=1, description="windows of one length heard together")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the network runs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for label in (self.labels or {}).values():
            if not is_label(self.dimension, label):
                raise ValueError(f"labels: {label!r} is no label of {self.dimension}; {label_rule(self.dimension)}")
        if self.multi_label and self.min_confidence is None:
            raise ValueError("multi_label needs min_confidence: without one the best label holds however improbable it is")
        if self.label_years and self.dimension != "age":
            raise ValueError(f"label_years is for the dimension age; this one is {self.dimension}")
        if self.max_s < self.min_s:
            raise ValueError(f"max_s = {self.max_s} must not be below min_s = {self.min_s}")
        return self

    def build(self) -> AudioClassifier:
        return AudioClassifier(self)


class AudioClassifier:
    """Annotator: value, confidence and posterior of one dimension; abstains in silence and under ``min_s``."""

    name = "audio_classifier"
    version = "1"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = CLASSIFIER_ADDS
    batch_tolerance = 1e-4  # windows of one length are heard together, which changes the order of sums

    def __init__(self, config: AudioClassifierConfig) -> None:
        self.config = config
        self._checkpoint: Checkpoint | None = None
        self._features: Any = None
        self._network: Any = None

    @property
    def resources(self) -> Resources:
        on_gpu = self.config.device == "cuda"
        return Resources(pool="classifiers", num_cpus=1.0, num_gpus=1.0 if on_gpu else 0.0, memory_bytes=2 << 30)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (self._found().fact(),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, network_identity(self.config), self._found().digest)

    def _found(self) -> Checkpoint:
        """The checkpoint, once it is known to be a classifier of the dimension's labels. Raises ModelUnavailable."""
        if self._checkpoint is None:
            from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES

            found = find_checkpoint(self.config.model, self.config.revision, may_download=self.config.may_download)
            check_type(found, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES, WHAT)
            _check_head(found, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.values())
            self._check_labels(found)
            self._checkpoint = found
        return self._checkpoint

    def _check_labels(self, found: Checkpoint) -> None:
        there = _labels_of(found)
        named = (*(self.config.labels or {}), *self.config.label_years)
        if unknown := [label for label in named if label not in there]:
            raise ModelUnavailable(f"model {found.name!r} has no label {unknown[0]!r}; it has {', '.join(there)}")
        if self.config.labels is None:
            strange = [label for label in there if not is_label(self.config.dimension, snake(label))]
            if strange:
                raise ModelUnavailable(
                    f"model {found.name!r} has the label {strange[0]!r}; {label_rule(self.config.dimension)}: "
                    "say with `labels` which is which"
                )

    def setup(self) -> None:
        if self._network is not None:
            return
        found = self._found()
        check_device(self.config.device)
        import torch
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        torch.set_num_threads(1)
        with loading(found, WHAT):
            # safetensors where there are any; a pickle is read as weights only.
            network, loaded = AutoModelForAudioClassification.from_pretrained(
                found.path,
                use_safetensors=found.has_safetensors,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
            features = AutoFeatureExtractor.from_pretrained(found.path, local_files_only=True)
        # transformers fills what is missing with random numbers; the mask of training plays no part here.
        if lacking := sorted(key for key in loaded["missing_keys"] if not key.endswith("masked_spec_embed")):
            raise ModelUnavailable(f"model {found.name!r} lacks the weights {lacking[0]!r}; give one that was trained as {WHAT}")
        if features.sampling_rate != MODEL_RATE_HZ:
            raise ModelUnavailable(
                f"model {found.name!r} hears audio at {features.sampling_rate} Hz; classifiers get {MODEL_RATE_HZ} Hz, "
                "give one trained on that"
            )
        self._features, self._network = features, fuse_weights(network).to(self.config.device)

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        windows = [(row, window) for row, audio_S in enumerate(batch.audio) for window in self._windows(audio_S)]
        probs_WK = self._probs([window for _, window in windows])
        of_row: dict[int, list[np.ndarray]] = {}
        for (row, _), probs_K in zip(windows, probs_WK, strict=True):
            of_row.setdefault(row, []).append(probs_K)
        return batch.table([self._row(of_row.get(row)) for row in range(len(batch))], self.adds)

    def _windows(self, audio_S: Audio) -> list[Audio]:
        """Windows of at most ``max_s`` that have sound in them; the last one of a long clip ends where the clip ends."""
        size = round(self.config.max_s * MODEL_RATE_HZ)
        if len(audio_S) < self.config.min_s * MODEL_RATE_HZ:
            return []
        starts = sorted({*range(0, max(1, len(audio_S) - size), size), max(0, len(audio_S) - size)})
        pieces = [audio_S[start : start + size] for start in starts]
        return [piece_S for piece_S in pieces if not is_silent(piece_S)]

    def _probs(self, windows: Sequence[Audio]) -> list[np.ndarray]:
        """Float64 ``[K]`` of each window: probabilities of the model's own labels."""
        import torch

        key = self._features.model_input_names[0]
        inputs = [torch.as_tensor(np.asarray(self._input(window, key))) for window in windows]
        probs: list[np.ndarray] = [np.zeros(0)] * len(windows)
        shapes: dict[tuple[int, ...], list[int]] = {}
        for w, values in enumerate(inputs):
            shapes.setdefault(tuple(values.shape), []).append(w)
        with torch.inference_mode():
            for alike in shapes.values():
                for first in range(0, len(alike), self.config.batch_size):
                    group = alike[first : first + self.config.batch_size]
                    stacked = torch.stack([inputs[w] for w in group]).to(self.config.device)
                    logits_WK = self._network(**{key: stacked}).logits.double() / self.config.temperature
                    group_WK = logits_WK.sigmoid() if self.config.multi_label else logits_WK.softmax(dim=-1)
                    for w, probs_K in zip(group, group_WK.cpu().numpy(), strict=True):
                        probs[w] = probs_K
        return probs

    def _input(self, window_S: Audio, key: str) -> Any:
        return self._features(window_S, sampling_rate=MODEL_RATE_HZ, return_tensors="np")[key][0]

    def _row(self, probs: list[np.ndarray] | None) -> dict[str, Any] | None:
        if not probs:
            return None
        own = dict(zip(_labels_of(self._found()), np.mean(probs, axis=0).tolist(), strict=True))
        posterior: dict[str, float] = {}
        for label, prob in own.items():
            ours = snake(label) if self.config.labels is None else self.config.labels.get(label, OTHER)
            # One of the labels that are one to us: sums where they exclude one another, else no less than the likeliest.
            posterior[ours] = max(posterior.get(ours, 0.0), prob) if self.config.multi_label else posterior.get(ours, 0.0) + prob
        years = expected_years(own, self.config.label_years)
        return classifier_row(self.config.dimension, posterior, self._source(), self.config.min_confidence, years)

    def _source(self) -> str:
        found = self._found()
        return f"{found.name}@{found.revision}" if found.revision else found.name


def _check_head(found: Checkpoint, known: Collection[str]) -> None:
    """Refuse a network that was saved with another head, or none: its labels would come from random weights."""
    saved = found.config.get("architectures") or []
    if saved and not set(saved) & set(known):
        raise ModelUnavailable(
            f"model {found.name!r} was saved as {saved[0]}, which is no {WHAT}; give one that was trained as such"
        )


def _labels_of(found: Checkpoint) -> list[str]:
    """The model's labels in the order of its outputs; transformers numbers those that nobody named."""
    named = found.config.get("id2label")
    if isinstance(named, dict) and named:
        return [str(named[number]) for number in sorted(named, key=int)]
    return [f"LABEL_{number}" for number in range(int(found.config.get("num_labels", 2)))]
