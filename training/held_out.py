"""What a model can do on documents that it was not trained on: texts it hears, written down freely; texts it reads, spoken freely
and read back off the codes; and the loss of plain text.

The first two say whether training works, the third whether it makes the model forget how to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.scoring import Scores, WordScore, score_words
from tokenization.code_reader import CodeReader
from training.code_reading import real_codes
from training.data import DocumentReader
from training.documents import Split, read_split
from training.entries import Entry
from training.evaluation import mean_loss
from training.evaluation_recipe import Drawing
from training.examples import ExampleMaker
from training.generation import Answer, Prompt, generate
from training.grammar import Grammar
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import LossWeights, Measure, PretrainStage, Task, TrainingRecipe
from training.sampling import Sampling

BATCH_DOCUMENTS = 16
TASKS = {Measure.ASR: Task.ASR, Measure.TEXT: Task.TEXT, Measure.TTS: Task.TTS}
# Answers are cut at so many ids, by the longest prompt: nobody says two ids in 80 ms, and what is known of the text must not matter here.
IDS_A_PATCH, IDS_BESIDES = 2, 16
# Speech is cut at so many times the ids of the longest document's own: what is known of any other must not matter here.
TIMES_LONGEST = 2


@dataclass(frozen=True)
class Speech:
    """What the model said."""

    codes: np.ndarray  # uint16 [F]
    is_finished: bool  # it came to its own end; else it was closed where it was cut


@dataclass(frozen=True)
class HeldOut:
    """Splits that no stage trains on, and how they are measured."""

    splits: tuple[Split, ...]
    reader: DocumentReader
    layouts: Layouts
    most: int  # documents of a split and measure, from its start
    speaking: Drawing = field(default_factory=Drawing)
    seed: int = 0
    code_reader: CodeReader | None = None  # there where speech is measured

    def row(self, model: StepAudio2, measures: Sequence[Measure], masked: slice | None) -> dict[str, Any]:
        """Figures of all splits under ``<split>_<measure>_<figure>``; ids that are masked have no probability."""
        found: dict[str, Any] = {}
        for split in self.splits:
            for measure in measures:
                figures = self._figures(measure, model, split, masked)
                found |= {f"{split.name}_{measure.value}_{name}": value for name, value in figures.items()}
        return found

    def _figures(self, measure: Measure, model: StepAudio2, split: Split, masked: slice | None) -> dict[str, Any]:
        entries = [split.entries[place] for place in split.eligible[TASKS[measure]][: self.most]]
        match measure:
            case Measure.ASR:
                found = self._asr(model, entries, masked)
            case Measure.TEXT:
                found = self._text(model, entries, masked)
            case Measure.TTS:
                found = self._tts(model, entries, masked)
        return {"documents": len(entries), **found}

    def _asr(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> dict[str, Any]:
        return self.errors_heard(list(zip(entries, self.transcribe(model, entries, masked), strict=True)))

    def errors_heard(self, heard: Sequence[tuple[Entry, Answer]]) -> dict[str, Any]:
        """Word and character errors of what was written behind ASR documents; ``cut``: answers that came to no end."""
        texts = [self.text_of(answer) for _, answer in heard]
        errors = _errors([entry for entry, _ in heard], texts)
        return {**errors, "cut": sum(not answer.is_finished for _, answer in heard)}

    def _text(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> dict[str, Any]:
        maker = ExampleMaker(self.layouts, LossWeights())
        examples = [maker.make(Task.TEXT, entry) for entry in entries]
        return {"loss": mean_loss(model, examples, maker, masked, model.lm_head.weight.device)}

    def _tts(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> dict[str, Any]:
        """Errors of what the reader reads off spoken codes, and ``real_..`` off the documents' own; ``length_ratio``: spoken
        codes by real ones; ``finished``: share that came to its end before it was cut."""
        assert self.code_reader is not None
        spoken = self.speak(model, entries, masked)
        real = [real_codes(entry, self.reader) for entry in entries]
        of_real = _errors(entries, [self.code_reader.read(codes) for codes in real])
        return {
            **_errors(entries, [self.code_reader.read(speech.codes) for speech in spoken]),
            "real_wer": of_real["wer"],
            "real_cer": of_real["cer"],
            "finished": sum(speech.is_finished for speech in spoken) / len(spoken),
            "length_ratio": sum(len(speech.codes) for speech in spoken) / sum(len(codes) for codes in real),
        }

    def transcribe(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> list[Answer]:
        """What the model writes behind the audio of each ASR document: greedy, by nothing but what it hears."""
        prompts = self._prompts(Task.ASR, entries)
        longest = max(len(prompt.ids) for prompt in prompts)
        room = model.config.decoder.max_positions - longest
        return self._answers(model, prompts, Sampling(max_new_tokens=min(room, IDS_A_PATCH * longest + IDS_BESIDES)), masked)

    def speak(self, model: StepAudio2, entries: Sequence[Entry], masked: slice | None) -> list[Speech]:
        """What the model says of the text of each TTS document, drawn as the recipe has it."""
        prompts = self._prompts(Task.TTS, entries)
        room = model.config.decoder.max_positions - max(len(prompt.ids) for prompt in prompts)
        longest = max(self.layouts.num_tokens(self.layouts.of(Task.TTS, entry), entry) for entry in entries)
        most = min(room, TIMES_LONGEST * longest)
        sampling = Sampling(max_new_tokens=most, **self.speaking.model_dump())
        return [self._speech(answer, most) for answer in self._answers(model, prompts, sampling, masked)]

    def _prompts(self, task: Task, entries: Sequence[Entry]) -> list[Prompt]:
        maker = ExampleMaker(self.layouts, LossWeights())
        return [Prompt.of_example(maker.make(task, entry, self.reader.read_for(task, entry))) for entry in entries]

    def _answers(self, model: StepAudio2, prompts: Sequence[Prompt], sampling: Sampling, masked: slice | None) -> list[Answer]:
        """In the order of the prompts; those of like lengths are worked out together."""
        grammar = Grammar(self.layouts.vocabulary, self.layouts.ratio, self.layouts.stop.ids)
        generator = None if sampling.is_greedy else torch.Generator().manual_seed(self.seed)
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place].ids))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), BATCH_DOCUMENTS):
            chosen = order[start : start + BATCH_DOCUMENTS]
            found = generate(model, [prompts[place] for place in chosen], grammar, sampling, generator=generator, masked=masked)
            answers |= dict(zip(chosen, found, strict=True))
        return [answers[place] for place in range(len(prompts))]

    def _speech(self, answer: Answer, most: int) -> Speech:
        """The codes of an answer to a prompt that ends with ``<tts_start>``. The grammar closes speech where its room ends."""
        vocabulary = self.layouts.vocabulary
        ((_, codes), *_) = Grammar(vocabulary, self.layouts.ratio, ()).speeches(np.append(vocabulary.tts_start, answer.ids))
        closed_at = int(np.flatnonzero(answer.ids == vocabulary.tts_end)[0])
        return Speech(codes, answer.is_finished and most - closed_at > self.layouts.ratio.group)

    def text_of(self, answer: Answer) -> str:
        """The words of an answer, without its stop."""
        written = answer.ids[:-1] if answer.is_finished else answer.ids
        return self.layouts.text.decode(written[written < self.layouts.vocabulary.text_size].tolist())


def _errors(entries: Sequence[Entry], texts: Sequence[str]) -> dict[str, Any]:
    """Of texts against the documents' own, pooled, by the plain rule of ``manifests.scoring``, which changes no word."""
    scores = [
        score_words(entry.key, entry.turns[0].text, text, entry.turns[0].language)
        for entry, text in zip(entries, texts, strict=True)
    ]
    pooled = Scores([], scores, [])
    return {
        "wer": pooled.word_rate("words"),
        "words": _num_reference(scores, "words"),
        "cer": pooled.word_rate("characters"),
        "characters": _num_reference(scores, "characters"),
        "exact": sum(score.num_errors == 0 for score in scores) / len(scores),
    }


def _num_reference(scores: Sequence[WordScore], unit: str) -> int:
    return sum(score.num_reference for score in scores if score.unit == unit)


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
