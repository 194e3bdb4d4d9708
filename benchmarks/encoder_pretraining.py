"""What augmentation and tag heads do for the encoder's pretraining, on the speech beside the checkout.

    .venv/bin/python -m benchmarks.encoder_pretraining
    .venv/bin/python -m benchmarks.encoder_pretraining --seeds 1 --augment none all --no-tags

- Words: single digits of three speakers, takes 5 to 49; each kind of augmentation by itself with the recipe's defaults, and all of
  them. Share of the words that best-path decoding gets wrong, on takes 0 to 4 of the same speakers, and on the fourth speaker.
- Gender: read sentences of all but every fifth speaker, CTC and the tag trained together; accuracy on the speakers left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.speech_pack import Clip, read_clips, write_speech_pack
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.batches import HeardExample, collate_ctc
from training.config import model_config
from training.data import Batching, DocumentReader, stage_data
from training.device import exact_arithmetic
from training.documents import Split, read_split
from training.entries import Entry
from training.examples import ExampleMaker
from training.features import log_mel
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import CtcStage, Task, TrainingRecipe
from training.tags import tag_numbers
from training.trainer import StageTrainer

LEFT_OUT_SPEAKER, TEST_TAKES = "fsdd-george", 5
KINDS = ("spec", "speed", "filter", "ends", "noise")
AUGMENTS: dict[str, dict[str, Any]] = {"none": {}, **{kind: {kind: {}} for kind in KINDS}, "all": {kind: {} for kind in KINDS}}
GENDER = {"labels": ["female", "male"], "layer": "source"}
LEAST_SPEAKERS = 5  # of which one is left out
EVALUATED_TOGETHER = 64


@dataclass(frozen=True)
class Material:
    """A pack, opened; ``parts`` are names of sets of its documents, ``train`` among them."""

    tokenizer: Tokenizer
    reader: DocumentReader
    layouts: Layouts
    split: Split
    parts: Mapping[str, Sequence[int]]  # places of the split's entries

    @staticmethod
    def of(folder: str, clips: Sequence[Clip], part_of: Mapping[str, str]) -> Material:
        """``part_of``: of each clip's key."""
        pack_uri, tokenizer_uri = write_speech_pack(folder, clips, with_audio=True)
        pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
        recipe = recipe_of({}, {}, 1, 1, 1)
        layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, recipe.prompts)
        split = read_split(pack, "train", layouts, [Task.CTC], 1)
        parts: dict[str, list[int]] = {}
        for place in split.eligible[Task.CTC]:
            parts.setdefault(part_of[split.entries[place].key], []).append(place)
        return Material(tokenizer, DocumentReader(pack, 1 << 30), layouts, split, parts)


def recipe_of(augment: Mapping[str, Any], tags: Mapping[str, Any], steps: int, documents: int, seed: int) -> TrainingRecipe:
    """One stage of CTC for the size ``tiny``."""
    rate = {"lr": 2e-3, "lr_end": 1e-4}
    stage = {
        "name": "ctc",
        "kind": "ctc",
        "steps": steps,
        "warmup_steps": steps // 10,
        "batch_documents": documents,
        "betas": (0.9, 0.98),
        "weight_decay": 0.01,
        "train": {"encoder": rate, "ctc_head": rate, **({"tag_heads": rate} if tags else {})},
        "augment": augment,
        "tags": tags,
    }
    return TrainingRecipe.model_validate({"model": "tiny", "seed": seed, "threads": 1, "stages": [stage]})


def trained(material: Material, recipe: TrainingRecipe) -> StepAudio2:
    """A drawn model after the recipe's stage over the part ``train``."""
    (stage,) = recipe.stages
    assert isinstance(stage, CtcStage)
    vocabulary, config = material.tokenizer.vocabulary, model_config(recipe.model)
    torch.manual_seed(recipe.seed)
    model = StepAudio2(config, vocabulary.num_rows, vocabulary.text_size, recipe.num_tag_labels)
    trainer, maker = StageTrainer(model, stage, vocabulary), ExampleMaker(material.layouts, stage.loss_weights)
    places = material.parts["train"]
    split = replace(
        material.split,
        eligible={Task.CTC: tuple(places)},
        num_tokens={Task.CTC: np.zeros(len(places), np.int64)},
    )
    data = stage_data(split, material.reader, maker, recipe, stage, Batching(config.encoder.num_mels, vocabulary.pad))
    for _ in range(stage.steps):
        trainer.train_step(data.next_step())
    return model


@torch.no_grad()
def figures(material: Material, model: StepAudio2, recipe: TrainingRecipe, part: str) -> dict[str, float]:
    """Share of the texts of a part that are not exact, and accuracy by tag."""
    (stage,) = recipe.stages
    assert isinstance(stage, CtcStage)
    maker = ExampleMaker(material.layouts, stage.loss_weights)
    entries = [material.split.entries[place] for place in material.parts[part]]
    counts, right = Counter[str](), Counter[str]()

    def heard(entry: Entry) -> HeardExample:
        document = material.reader.read(entry)
        example = maker.make(Task.CTC, entry, document)
        mel = log_mel(torch.from_numpy(example.audio[0]), model.config.encoder.num_mels)
        return HeardExample(example, mel, tag_numbers(document, stage.tags))

    for start in range(0, len(entries), EVALUATED_TOGETHER):
        chosen = [heard(entry) for entry in entries[start : start + EVALUATED_TOGETHER]]
        for batch in collate_ctc(chosen, [1.0] * len(stage.tags)):
            frames_A = (batch.heard.num_valid_A + 1) // 2 // 2
            frames_AFE = model.encode(batch.heard.mels_ACM, batch.heard.num_valid_A)
            logits_AFL = model.ctc_head(frames_AFE)
            blank = logits_AFL.shape[-1] - 1
            for place, best in enumerate(logits_AFL.argmax(-1)):
                written = torch.unique_consecutive(best[: int(frames_A[place])])
                labels = batch.labels_AL[place, : batch.num_labels_A[place]]
                right["texts"] += torch.equal(written[written != blank], labels)
                counts["texts"] += 1
            for name, tags_A in zip(stage.tags, batch.tags_GA, strict=True):
                right[name] += int((model.tag_logits(frames_AFE, frames_A, name).argmax(-1) == tags_A).sum())
                counts[name] += int((tags_A >= 0).sum())
    return {name: right[name] / count for name, count in counts.items()}


def digits(folder: str, names: Sequence[str], seeds: Sequence[int], steps: int) -> None:
    clips = read_clips(["digits"])

    def part(clip: Clip) -> str:
        if clip.speaker == LEFT_OUT_SPEAKER:
            return "other speaker"
        return "test takes" if int(clip.key.rsplit("_", 1)[1]) < TEST_TAKES else "train"

    material = Material.of(folder, clips, {clip.key: part(clip) for clip in clips})
    print(", ".join(f"{name}: {len(places)} words" for name, places in sorted(material.parts.items())))
    print("| augmentation | seed | wrong of test takes | wrong of the other speaker |\n|---|---|---|---|", flush=True)
    for name in names:
        for seed in seeds:
            recipe = recipe_of(AUGMENTS[name], {}, steps, 32, seed)
            model = trained(material, recipe)
            found = [1 - figures(material, model, recipe, part)["texts"] for part in ("test takes", "other speaker")]
            print(f"| {name} | {seed} | {found[0]:.1%} | {found[1]:.1%} |", flush=True)


def gender(folder: str, seed: int, steps: int, weight: float) -> None:
    clips = read_clips(["read"])
    left_out = set(sorted({clip.speaker for clip in clips})[::LEAST_SPEAKERS])
    material = Material.of(folder, clips, {clip.key: "test" if clip.speaker in left_out else "train" for clip in clips})
    recipe = recipe_of({}, {"gender": {**GENDER, "weight": weight}}, steps, 16, seed)
    model = trained(material, recipe)
    held = [clip.gender for clip in clips if clip.speaker in left_out]
    majority = Counter(held).most_common(1)[0][1] / len(held)
    found = {part: figures(material, model, recipe, part)["gender"] for part in ("train", "test")}
    print(
        f"gender of {len(held)} sentences of {len(left_out)} speakers left out, seed {seed}: {found['test']:.1%} right, "
        f"majority {majority:.1%}; of the speakers trained on {found['train']:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--augment", nargs="*", choices=AUGMENTS, default=list(AUGMENTS), help="none of them: gender alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tag-steps", type=int, default=150)
    parser.add_argument("--tag-weight", type=float, default=3.0, help="a label of text has 1")
    parser.add_argument("--no-tags", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, exact_arithmetic(1):
        if options.augment:
            digits(f"{folder}/digits", options.augment, options.seeds, options.steps)
        if not options.no_tags:
            gender(f"{folder}/read", options.seeds[0], options.tag_steps, options.tag_weight)


if __name__ == "__main__":
    main()
