"""From labelled recordings to a model that hears, by Stepwell's own verbs, in one folder an experiment.

C mel bands, M mel frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.verbs import build_corpus, make_pack, stepwell, train_run
from manifests.packs import Document, Pack
from tokenization.artifact import Tokenizer
from training import checkpoint
from training.batches import HeardExample, collate_ctc
from training.config import model_config
from training.data import DocumentReader
from training.documents import Split, read_split
from training.entries import Entry
from training.evaluation import mean_loss
from training.examples import ExampleMaker
from training.features import log_mel
from training.held_out import HeldOut
from training.layouts import Layouts
from training.model import StepAudio2
from training.objectives import ctc_sums
from training.recipe import LossWeights, Task, TrainingRecipe, load_training_recipe

RECIPES = Path(__file__).parent / "curricula"
CACHED_AUDIO_BYTES = 256 << 20
TRAIN = "train"


@dataclass(frozen=True)
class Spoken:
    """A recording that says its text."""

    path: Path
    text: str
    speaker: str


class Chain:
    """Corpora, tokenizer, packs and a run below ``out``. What was made is not made again."""

    def __init__(self, out: Path, recipe: str) -> None:
        self.out, self.run = out, out / "run"
        self._recipe_path = RECIPES / f"{recipe}.yaml"
        self.recipe: TrainingRecipe = load_training_recipe(str(self._recipe_path))

    def prepare(self, **splits: Iterable[Spoken]) -> None:
        """A corpus and a pack a split; the tokenizer learns from ``train`` alone."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name, spoken in splits.items():
            manifest = self.out / f"{name}.jsonl"
            manifest.write_text("".join(json.dumps(_row(one)) + "\n" for one in spoken), encoding="utf-8")
            build_corpus(manifest, self.out / "corpora" / name)
        tokenizer = self.out / "tokenizer"
        stepwell("tokenizer", "train", self.out / "corpora" / TRAIN, "--out", tokenizer, "--recipe", RECIPES / "tokenizer.yaml")
        for name in splits:
            make_pack(self.out / "corpora" / name, self.out / "packs" / name, RECIPES / "pack.yaml", name, tokenizer)

    def train(self) -> None:
        """All stages of the recipe; a run that was cut off goes on."""
        train_run(self._recipe_path, self.out / "packs" / TRAIN, self.out / "tokenizer", self.run)


class Listener:
    """The model of one of a run's checkpoints, the newest unless it is named, and what it makes of the chain's packs."""

    def __init__(self, chain: Chain, name: str | None = None) -> None:
        tokenizer = Tokenizer.open(str(chain.out / "tokenizer"))
        vocabulary = tokenizer.vocabulary
        self.layouts = Layouts(tokenizer.text, vocabulary, tokenizer.ratio, chain.recipe.prompts)
        self.model = StepAudio2(model_config(chain.recipe.model), vocabulary.num_rows, vocabulary.text_size)
        chosen = name or checkpoint.complete(str(chain.run))[-1]
        checkpoint.load_weights(checkpoint.path_of(str(chain.run), chosen), self.model)
        self.model.eval()
        self._chain = chain
        # As in the stages, which all say ``vocabulary: text``.
        self._masked = slice(vocabulary.audio_base, None)

    def documents(self, name: str, most: int | None = None) -> list[tuple[Entry, Document]]:
        """The split's first documents that can be heard, with their audio."""
        split, reader = self._open(name)
        entries = [split.entries[place] for place in split.eligible[Task.ASR][:most]]
        return [(entry, reader.read(entry)) for entry in entries]

    def transcribe(self, name: str) -> list[str]:
        """What the model writes down of every document of the split, decoding freely and greedily."""
        split, reader = self._open(name)
        entries = [split.entries[place] for place in split.eligible[Task.ASR]]
        held_out = HeldOut((split,), reader, self.layouts, len(entries))
        return [held_out.text_of(answer) for answer in held_out.transcribe(self.model, entries, self._masked)]

    def asr_loss(self, name: str, most: int) -> float:
        """Nats a target (text and stop) over the split's first documents."""
        maker = ExampleMaker(self.layouts, LossWeights())
        examples = [maker.make(Task.ASR, entry, document) for entry, document in self.documents(name, most)]
        return mean_loss(self.model, examples, maker, self._masked, torch.device("cpu"))

    @torch.inference_mode()
    def ctc_loss(self, name: str, most: int) -> float:
        """Nats a label over the split's first documents; one with more labels than frames to say them in is left out."""
        maker, num_mels = ExampleMaker(self.layouts, LossWeights()), self.model.config.encoder.num_mels
        loss, num_labels = 0.0, 0
        for entry, document in self.documents(name, most):
            example = maker.make(Task.CTC, entry, document)
            mel_CM = log_mel(torch.from_numpy(example.audio[0]), num_mels)
            (batch,) = collate_ctc([HeardExample(example, mel_CM, ())])
            own = float(ctc_sums(self.model, batch).loss)
            if math.isfinite(own):
                loss, num_labels = loss + own, num_labels + len(example.ids)
        return loss / num_labels

    def _open(self, name: str) -> tuple[Split, DocumentReader]:
        pack = Pack.open(str(self._chain.out / "packs" / name))
        longest = self.model.config.decoder.max_positions
        return read_split(pack, name, self.layouts, [Task.ASR], longest), DocumentReader(pack, CACHED_AUDIO_BYTES)


def read_manifest(speech: Path, folder: str) -> list[Spoken]:
    """Recordings of a folder of ``../shared/speech``."""
    with open(speech / "manifest.jsonl", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["path"].startswith(f"{folder}/")]
    return [Spoken((speech / row["path"]).resolve(), row["transcript"], row["speaker"]) for row in rows]


def _row(one: Spoken) -> dict[str, str]:
    """As ``corpus build`` reads it."""
    return {"uri": str(one.path), "text": one.text, "speaker_label": one.speaker, "language": "en", "source": "speech"}
