"""A run's weights as a folder that others read: the published layout, or decoder and head as a Qwen2 model of transformers."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from manifests.errors import RequestError
from manifests.recipes import decode_recipe
from tokenization.vocabulary import Vocabulary
from training import checkpoint
from training.config import Dtype, Part, model_config
from training.model import StepAudio2
from training.pretrained import TEXT_MODEL, save_decoder
from training.published import published_tensors, save_published
from training.recipe import TrainingRecipe
from training.run_folder import RECIPE, START, TEXT_TOKENIZER, VOCABULARY
from training.start import loaded_groups


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    out: str
    part: str
    dtype: str
    run: str
    checkpoint: str
    stage: str
    parameters: int
    vocabulary_hash: str

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{self.out}: {self.part} of {self.run}, checkpoint {self.checkpoint}, {self.parameters:,} parameters in {self.dtype}"
        ]


def export_run(
    run_path: str, out: str, part: Part = Part.MODEL, dtype: Dtype = Dtype.BFLOAT16, name: str | None = None
) -> ExportResult:
    """Write the newest checkpoint of a run, or the one of that name, as a new folder.

    Raises RequestError for a folder without checkpoints, an unknown name, and an output that is there already;
    MismatchError for a checkpoint of another format or vocabulary.
    """
    names = checkpoint.complete(run_path)
    if not names:
        raise RequestError(f"run {run_path!r} has no checkpoint; give the folder of a run that saved one")
    if name is not None and name not in names:
        raise RequestError(f"run {run_path!r} has no checkpoint {name!r}; it has {', '.join(names)}")
    chosen = name or names[-1]
    path = checkpoint.path_of(run_path, chosen)
    state = checkpoint.load_state(path)
    recipe = decode_recipe(TrainingRecipe, json.dumps(_read(run_path, RECIPE)), os.path.join(run_path, RECIPE))
    vocabulary = Vocabulary.from_json(_read(run_path, VOCABULARY))
    vocabulary.check_layout(state.identity.vocabulary_hash, f"checkpoint {chosen!r}")
    with torch.device("meta"):
        model = StepAudio2(model_config(recipe.model), vocabulary.num_rows, vocabulary.text_size)
    model.to_empty(device="cpu")
    checkpoint.load_weights(path, model)
    text_tokenizer = _bytes(run_path, TEXT_TOKENIZER)
    facts: dict[str, Any] = {"run": os.path.basename(os.path.abspath(run_path)), "checkpoint": chosen, **asdict(state.identity)}
    facts["trained"] = _trained(run_path, recipe, state.stage_number)
    save = save_published if part is Part.MODEL else save_decoder
    save(out, model, vocabulary, facts, getattr(torch, dtype.value), text_tokenizer)
    size = sum(
        tensor.numel() for name, tensor in published_tensors(model).items() if part is Part.MODEL or name.startswith(TEXT_MODEL)
    )
    return ExportResult(out, part.value, dtype.value, run_path, chosen, state.stage, size, vocabulary.layout_hash)


def _trained(run_path: str, recipe: TrainingRecipe, stage_number: int) -> list[str]:
    """Parts of the model that the stages up to that one train, or that were trained where the run started."""
    before = _read(run_path, START)["trained"] if loaded_groups(recipe.start) else []
    return sorted({*before, *(group.value for stage in recipe.stages[: stage_number + 1] for group in stage.train)})


def _read(run_path: str, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(_bytes(run_path, name)))
    except ValueError as error:
        raise RequestError(f"run {run_path!r}: {name} cannot be read ({error}); give the folder of a run") from error


def _bytes(run_path: str, name: str) -> bytes:
    try:
        with open(os.path.join(run_path, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise RequestError(f"run {run_path!r}: {name} cannot be read ({error}); give the folder of a run") from error
