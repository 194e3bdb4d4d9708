"""What a trained model hears in the strings of a pack, and what it says when it is given their texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.config import model_config
from training.data import DocumentReader
from training.documents import Split, read_split
from training.entries import Entry
from training.held_out import HeldOut, Speech
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import Task, TrainingRecipe
from training.start import open_start
from training.start_recipe import StartRecipe


@dataclass(frozen=True)
class Trained:
    """A model with the recipe, the tokenizer and the layouts that it was trained with."""

    recipe: TrainingRecipe
    model: StepAudio2
    tokenizer: Tokenizer
    layouts: Layouts

    @staticmethod
    def open(exported: str, tokenizer_uri: str, recipe: TrainingRecipe) -> Trained:
        """From the folder that ``train export`` wrote."""
        tokenizer = Tokenizer.open(tokenizer_uri)
        vocabulary = tokenizer.vocabulary
        model = StepAudio2(model_config(recipe.model), vocabulary.num_rows, vocabulary.text_size)
        open_start(StartRecipe(model=exported), recipe.model, vocabulary).load(model, recipe.seed)
        layouts = Layouts(tokenizer.text, vocabulary, tokenizer.ratio, recipe.prompts)
        return Trained(recipe, model.eval(), tokenizer, layouts)

    def strings(self, pack: Pack, fewest_digits: int = 1) -> Split:
        """The pack's only split, of which only strings of so many digits and more serve."""
        (name,) = pack.splits
        split = read_split(pack, name, self.layouts, [Task.ASR, Task.TTS], self.model.config.decoder.max_positions)
        chosen = {
            task: tuple(place for place in places if len(split.entries[place].text.split()) >= fewest_digits)
            for task, places in split.eligible.items()
        }
        return replace(split, eligible=chosen)

    def hear(self, pack: Pack, fewest_digits: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """Under each name, of strings of so many digits and more: ``wer``, ``words`` and what else ``training.held_out`` says of ASR.

        Greedy, by nothing but what is heard; each string is heard once.
        """
        split = self.strings(pack, min(fewest_digits.values()))
        entries = [split.entries[place] for place in split.eligible[Task.ASR]]
        held_out = self._held_out(pack, split)
        heard = list(zip(entries, held_out.transcribe(self.model, entries, None), strict=True))
        found = {}
        for name, fewest in fewest_digits.items():
            own = [(entry, answer) for entry, answer in heard if len(entry.text.split()) >= fewest]
            found[name] = {"documents": len(own), **held_out.errors_heard(own)}
        return found

    def speak(self, pack: Pack, fewest_digits: int) -> list[tuple[Entry, Speech]]:
        """What the model says for the text of each string, which is all that it is given; drawn as the recipe has it."""
        split = self.strings(pack, fewest_digits)
        entries = [split.entries[place] for place in split.eligible[Task.TTS]]
        return list(zip(entries, self._held_out(pack, split).speak(self.model, entries, None), strict=True))

    def _held_out(self, pack: Pack, split: Split) -> HeldOut:
        reader = DocumentReader(pack, self.recipe.data.cached_audio_bytes)
        speaking = self.recipe.evaluation.speaking
        return HeldOut((split,), reader, self.layouts, len(split.entries), speaking, self.recipe.seed)
