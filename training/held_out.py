"""What a model can do on documents that it was not trained on: texts it hears, written down freely, and the loss of plain text.

The first says whether training works, the second whether it makes the model forget how to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.scoring import Scores, WordScore, score_words
from training.data import DocumentReader
from training.documents import Split, read_split
from training.entries import Entry
from training.evaluation import mean_loss
from training.examples import ExampleMaker
from training.generation import Answer, Prompt, generate
from training.grammar import Grammar
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import LossWeights, Measure, PretrainStage, Task, TrainingRecipe
from training.sampling import Sampling

BATCH_DOCUMENTS = 16
TASKS = {Measure.ASR: Task.ASR, Measure.TEXT: Task.TEXT}
# Answers are cut at so many ids, by the longest prompt: nobody says two ids in 80 ms, and what is known of the text must not matter here.
IDS_A_PATCH, IDS_BESIDES = 2, 16


@dataclass(frozen=True)
class HeldOut:
    """Splits that no stage trains on, and how they are measured."""

    splits: tuple[Split, ...]
    reader: DocumentReader
    layouts: Layouts
    most: int  # documents of a split and measure, from its start

    def row(self, model: StepAudio2, measures: Sequence[Measure], masked: slice | None) -> dict[str, Any]:
        """Figures of all splits under ``<split>_<measure>_<figure>``; ids that are masked have no probability."""
        found: dict[str, Any] = {}
        for split in self.splits:
            for measure in measures:
                figures = (self._asr if measure is Measure.ASR else self._text)(model, split, masked)
                found |= {f"{split.name}_{measure.value}_{name}": value for name, value in figures.items()}
        return found

    def _asr(self, model: StepAudio2, split: Split, masked: slice | None) -> dict[str, Any]:
        entries = [split.entries[place] for place in split.eligible[Task.ASR][: self.most]]
        answers = self.transcribe(model, entries, masked)
        scores = [self._score(entry, answer) for entry, answer in zip(entries, answers, strict=True)]
        pooled = Scores([], scores, [])
        return {
            "documents": len(entries),
            "wer": pooled.word_rate("words"),
            "words": sum(score.num_reference for score in scores if score.unit == "words"),
            "cer": pooled.word_rate("characters"),
            "characters": sum(score.num_reference for score in scores if score.unit == "characters"),
            "exact": sum(score.num_errors == 0 for score in scores) / len(scores),
            "cut": sum(not answer.is_finished for answer in answers),
        }

    def _text(self, model: StepAudio2, split: Split, masked: slice | None) -> dict[str, Any]:
        maker = ExampleMaker(self.layouts, LossWeights())
        entries = [split.entries[place] for place in split.eligible[Task.TEXT][: self.most]]
        examples = [maker.make(Task.TEXT, entry) for entry in entries]
        device = model.lm_head.weight.device
        return {"documents": len(entries), "loss": mean_loss(model, examples, maker, masked, device)}

    def transcribe(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> list[Answer]:
        """What the model writes behind the audio of each ASR document: greedy, by nothing but what it hears."""
        maker = ExampleMaker(self.layouts, LossWeights())
        prompts = [Prompt.of_example(maker.make(Task.ASR, entry, self.reader.read(entry))) for entry in entries]
        grammar = Grammar(self.layouts.vocabulary, self.layouts.ratio, self.layouts.stop.ids)
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids))
        longest = len(prompts[order[-1]].ids)
        room = model.config.decoder.max_positions - longest
        sampling = Sampling(max_new_tokens=min(room, IDS_A_PATCH * longest + IDS_BESIDES))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH_DOCUMENTS):
            chosen = order[start : start + BATCH_DOCUMENTS]
            found = generate(model, [prompts[place] for place in chosen], grammar, sampling, masked=masked)
            answers |= dict(zip(chosen, found, strict=True))
        return [answers[place] for place in range(len(prompts))]

    def _score(self, entry: Entry, answer: Answer) -> WordScore:
        """Errors by the plain rule of ``manifests.scoring``, which changes no word."""
        written = answer.ids[:-1] if answer.is_finished else answer.ids
        text = self.layouts.text.decode(written[written < self.layouts.vocabulary.text_size].tolist())
        return score_words(entry.key, entry.turns[0].text, text, entry.turns[0].language)


def held_out_splits(recipe: TrainingRecipe, pack: Pack, layouts: Layouts) -> tuple[Split, ...]:
    """The splits that the stages' measures are taken on; none where no stage measures.

    Raises RequestError when a split is trained on, is not in the pack, or has no document for a measure.
    """
    asked = {measure for stage in recipe.stages if isinstance(stage, PretrainStage) for measure in stage.measures}
    measures = [measure for measure in Measure if measure in asked]
    names = recipe.data.held_out_splits if measures else ()
    if recipe.data.train_split in names:
        raise RequestError(f"split {recipe.data.train_split!r} is trained on; name others in data.held_out_splits")
    tasks = [TASKS[measure] for measure in measures]
    splits = tuple(read_split(pack, name, layouts, tasks, recipe.longest_sequence) for name in names)
    for split in splits:
        for task in tasks:
            if not split.eligible[task]:
                raise RequestError(
                    f"split {split.name!r} has no document for task {task.value!r} (refused: {dict(split.refused[task])}); take it out "
                    "of data.held_out_splits, or the measure out of the stages"
                )
    return splits
