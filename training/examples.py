"""Layouts to examples: what stands at each position, of which kind it is, and how much its loss weighs.

T positions of an example, S samples of a piece of audio. What each task is laid out of: ``training.layouts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manifests.errors import ContractError
from tokenization.interleave import interleave
from tokenization.stretches import Encoded, Fixed, Heard, Spoken, Stretch, TokenKind
from training.entries import Entry
from training.layouts import Lacking, Layouts
from training.lengths import num_patches, pieces
from training.recipe import LossWeights, RepeatRecipe, Task

if TYPE_CHECKING:
    from manifests.packs import Document, Turn

PATCH_PAD = "<audio_patch_pad>"
NO_DOCUMENT = ""  # document_id of an example that is made of spans of many: none is to blame for it


@dataclass(frozen=True)
class Example:
    """What the trainer sees of one document, or of spans of many.

    The loss of ``ids[t]`` is predicted from the state at t - 1, so the first position never has weight; but all labels of
    ``ctc`` have, which nothing predicts one from the other.
    """

    task: Task
    document_id: str  # key of the document, or NO_DOCUMENT
    ids: np.ndarray  # int64 [T]
    kinds: np.ndarray  # uint8 [T] of TokenKind
    weights: np.ndarray  # float32 [T]: of the position's loss, the stage's weight of its kind; 0 = no loss
    positions: np.ndarray  # int32 [T], from 0
    is_heard: np.ndarray  # bool [T]: an adaptor feature stands here instead of the id's embedding
    audio: tuple[np.ndarray, ...] = ()  # float32 [S] at 16 kHz each: what is heard behind each <audio_start>, in order


def kind_weights(weights: LossWeights) -> np.ndarray:
    """Float32 ``[K]``: a stage's weights in the order of TokenKind."""
    return np.array([getattr(weights, kind.name.lower()) for kind in TokenKind], dtype=np.float32)


class ExampleMaker:
    """Makes the examples of one stage, by its weights of loss."""

    def __init__(self, layouts: Layouts, weights: LossWeights) -> None:
        self.layouts, self.vocabulary = layouts, layouts.vocabulary
        self._weights_K = kind_weights(weights)

    def make(self, task: Task, entry: Entry, document: Document | None = None) -> Example:
        """The example of an entry that serves the task. ``document`` may be left out where it is of text alone.

        Raises ContractError when the document is not what the manifest says.
        """
        try:
            stretches = self.layouts.of(task, entry)
        except Lacking as lack:
            raise ContractError(
                f"document {entry.key!r} cannot serve {task.value!r}: {lack.reason}; ask ``serves`` first"
            ) from lack
        draft = Draft(self._weights_K)
        for stretch in stretches:
            self._fill(draft, stretch, entry, document)
        return draft.example(task, entry.key)

    def repeat(self, document_id: str, text_ids: Sequence[int], num_places: int, rng: np.random.Generator) -> Example:
        """Text between the wrappers of audio, and the same text again. It has ASR's form on purpose.

        ``num_places`` positions stand between the wrappers; the text keeps its order in a random choice of them. The
        decoder learns to copy what stands there, out of placeholders and at uneven places, so that an adaptor alone can
        then make it hear: it has to put near-embeddings of the text's tokens there, at the audio's own pace.
        """
        if num_places < len(text_ids):
            raise ContractError(f"repeat of {len(text_ids)} tokens in {num_places} places; give each token a place")
        ids = list(text_ids)
        chosen = np.sort(rng.choice(num_places, size=len(ids), replace=False))
        places = np.full(num_places, self.vocabulary.special(PATCH_PAD), dtype=np.int64)
        kinds = np.full(num_places, TokenKind.SPECIAL, dtype=np.uint8)
        places[chosen], kinds[chosen] = ids, TokenKind.TEXT
        draft = Draft(self._weights_K)
        for prompt in self.layouts.prompt(self.layouts.prompts.asr):
            draft.add(prompt.ids, prompt.kind)
        draft.add([self.vocabulary.audio_start], TokenKind.SPECIAL).add(places, kinds)
        draft.add([self.vocabulary.audio_end], TokenKind.SPECIAL).add(ids, TokenKind.TEXT, is_target=True)
        return draft.add(self.layouts.stop.ids, TokenKind.SPECIAL, is_target=True).example(Task.REPEAT, document_id)

    def _fill(self, draft: Draft, stretch: Stretch, entry: Entry, document: Document | None) -> None:
        match stretch:
            case Fixed():
                draft.add(list(stretch.ids), stretch.kind, is_target=stretch.is_target)
            case Heard():
                audio = _audio(entry, document, stretch.turn)
                for start, stop in pieces(len(audio)):
                    draft.add([self.vocabulary.audio_start], TokenKind.SPECIAL)
                    draft.hear([self.vocabulary.audio_patch] * num_patches(stop - start), audio[start:stop])
                    draft.add([self.vocabulary.audio_end], TokenKind.SPECIAL)
            case Spoken():
                codes = _codes(entry, document, stretch.turn)
                ids, kinds = interleave(list(stretch.text_ids), codes, self.vocabulary, self.layouts.ratio)
                draft.add(ids, kinds, is_target=stretch.is_target)
            case Encoded():
                draft.hear([], _audio(entry, document, stretch.turn))


class Draft:
    """An example under construction: stretches in order."""

    def __init__(self, weights_K: np.ndarray) -> None:
        self._weights_K = weights_K
        self._ids: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._heard: list[np.ndarray] = []
        self._audio: list[np.ndarray] = []

    def add(
        self,
        ids: np.ndarray | Sequence[int],
        kinds: np.ndarray | TokenKind,
        *,
        is_target: bool = False,
        is_heard: bool = False,
    ) -> Draft:
        """Positions behind those that there are."""
        values = np.asarray(ids, dtype=np.int64)
        what = np.broadcast_to(np.asarray(kinds, dtype=np.uint8), values.shape)
        self._ids.append(values)
        self._kinds.append(what)
        self._weights.append(self._weights_K[what] if is_target else np.zeros(values.shape, dtype=np.float32))
        self._heard.append(np.full(values.shape, is_heard))
        return self

    def hear(self, patches: Sequence[int], audio: np.ndarray) -> Draft:
        """A piece of audio, and the patches that its features take the place of."""
        self._audio.append(audio)
        return self.add(patches, TokenKind.SPECIAL, is_heard=True)

    def example(self, task: Task, document_id: str) -> Example:
        """What was added, as an example."""
        ids, kinds, weights, heard = (np.concatenate(part) for part in (self._ids, self._kinds, self._weights, self._heard))
        if task is not Task.CTC:
            weights[0] = 0.0  # nothing stands before it that could predict it
        return Example(task, document_id, ids, kinds, weights, np.arange(len(ids), dtype=np.int32), heard, tuple(self._audio))


def recombine(texts: Sequence[Sequence[int]], recipe: RepeatRecipe, rng: np.random.Generator) -> list[int]:
    """Token ids of 1 to ``max_spans`` random spans of random texts, each of 1 to ``max_span_tokens`` tokens.

    Copying these cannot be learned by heart, so the decoder has to learn to copy.
    """
    ids: list[int] = []
    for _ in range(rng.integers(1, recipe.max_spans + 1)):
        text = texts[int(rng.integers(len(texts)))]
        length = int(rng.integers(1, min(recipe.max_span_tokens, len(text)) + 1))
        start = int(rng.integers(len(text) - length + 1))
        ids.extend(text[start : start + length])
    return ids


def _audio(entry: Entry, document: Document | None, number: int) -> np.ndarray:
    """Float32 ``[S]`` of a turn, as long as the manifest says."""
    audio, expected = _turn(entry, document, number).audio, entry.turn(number).num_samples
    if audio is None or len(audio) != expected:
        raise _other(entry, number, "samples of audio", expected, audio)
    return audio


def _codes(entry: Entry, document: Document | None, number: int) -> np.ndarray:
    """uint16 ``[frames]`` of a turn, as many as the manifest says."""
    codes, expected = _turn(entry, document, number).codes, entry.turn(number).num_codes
    if codes is None or len(codes) != expected:
        raise _other(entry, number, "codes", expected, codes)
    return codes


def _turn(entry: Entry, document: Document | None, number: int) -> Turn:
    if document is None or number >= len(document.turns):
        raise ContractError(f"document {entry.key!r} has no turn {number} to read; the manifest says otherwise: pack again")
    return document.turns[number]


def _other(entry: Entry, number: int, what: str, expected: int | None, found: np.ndarray | None) -> ContractError:
    return ContractError(
        f"document {entry.key!r}, turn {number}: {0 if found is None else len(found)} {what}, the manifest says {expected}; pack again"
    )
