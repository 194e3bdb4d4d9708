"""Documents to examples: what stands at each position, of which kind it is, and where the loss is.

T positions of an example. The layouts (reference, sections 1.5, 1.7 and 1.8, base format, without a chat template):

    text     x <|endoftext|>
    repeat   <audio_start> x, stretched with <audio_patch_pad> <audio_end> x <|endoftext|>
    asr      <audio_start> <audio_patch> x n <audio_end> x <|endoftext|>
    tts      x <tts_start> interleave(x, codes) <tts_end> <|endoftext|>
    ctc      x, as labels of the encoder's frames

Targets are what follows <audio_end> or <tts_start>, all of ``text`` but its first token (nothing stands before it), and
the labels of ``ctc``. Prompts, patches and wrappers carry no loss.

``repeat`` has ASR's form on purpose. The decoder learns to copy what stands between the audio wrappers, out of
placeholders and at uneven places, so that an adaptor alone can then make it hear: it has to put near-embeddings of the
text's tokens there, at the audio's own pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manifests.errors import ContractError
from tokenization.interleave import Ratio, interleave
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary
from training.lengths import num_patches
from training.recipe import LossWeights, RepeatRecipe, Task

if TYPE_CHECKING:
    from manifests.packs import Document


PATCH_PAD = "<audio_patch_pad>"


@dataclass(frozen=True)
class Example:
    """What the trainer sees of one document.

    The loss of ``ids[t]`` is predicted from the state at t - 1, so the first position never has weight; but all labels of
    ``ctc`` have, which nothing predicts one from the other.
    """

    task: Task
    document_id: str
    ids: np.ndarray  # int64 [T]
    kinds: np.ndarray  # uint8 [T] of TokenKind
    weights: np.ndarray  # float32 [T]: of the position's loss, the stage's weight of its kind; 0 = no loss
    positions: np.ndarray  # int32 [T], from 0
    is_heard: np.ndarray  # bool [T]: an adaptor feature stands here instead of the id's embedding
    audio: tuple[np.ndarray, ...] = ()  # float32 [S] at 16 kHz each: what is heard behind each <audio_start>, in order


def kind_weights(weights: LossWeights) -> np.ndarray:
    """Float32 ``[K]``: a stage's weights in the order of TokenKind."""
    return np.array([getattr(weights, kind.name.lower()) for kind in TokenKind], dtype=np.float32)


class Layout:
    """An example under construction: stretches of ids of one kind, in order."""

    def __init__(self, weights_K: np.ndarray) -> None:
        self._weights_K = weights_K
        self._ids: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._heard: list[np.ndarray] = []

    def add(
        self, ids: np.ndarray | list[int], kinds: np.ndarray | TokenKind, *, is_target: bool = False, is_heard: bool = False
    ) -> Layout:
        values = np.asarray(ids, dtype=np.int64)
        self._ids.append(values)
        what = np.broadcast_to(np.asarray(kinds, dtype=np.uint8), values.shape)
        self._kinds.append(what)
        self._weights.append(self._weights_K[what] if is_target else np.zeros(values.shape, dtype=np.float32))
        self._heard.append(np.full(values.shape, is_heard))
        return self

    def example(self, task: Task, document_id: str, *audio: np.ndarray) -> Example:
        ids, kinds, weights, heard = (np.concatenate(part) for part in (self._ids, self._kinds, self._weights, self._heard))
        return Example(task, document_id, ids, kinds, weights, np.arange(len(ids), dtype=np.int32), heard, audio)


class ExampleMaker:
    """Lays out examples over one vocabulary and interleave ratio, with one stage's weights of loss."""

    def __init__(self, vocabulary: Vocabulary, ratio: Ratio, weights: LossWeights = LossWeights()) -> None:  # noqa: B008 (frozen)
        self.vocabulary, self.ratio = vocabulary, ratio
        self._weights_K = kind_weights(weights)

    def ctc(self, key: str, text_ids: list[int], audio: np.ndarray) -> Example:
        return Layout(self._weights_K).add(text_ids, TokenKind.TEXT, is_target=True).example(Task.CTC, key, audio)

    def text(self, key: str, text_ids: list[int]) -> Example:
        layout = Layout(self._weights_K).add(text_ids[:1], TokenKind.TEXT).add(text_ids[1:], TokenKind.TEXT, is_target=True)
        return self._ended(layout).example(Task.TEXT, key)

    def asr(self, key: str, text_ids: list[int], audio: np.ndarray) -> Example:
        patches = [self.vocabulary.audio_patch] * num_patches(len(audio))
        layout = Layout(self._weights_K).add([self.vocabulary.audio_start], TokenKind.SPECIAL)
        layout.add(patches, TokenKind.SPECIAL, is_heard=True).add([self.vocabulary.audio_end], TokenKind.SPECIAL)
        return self._ended(layout.add(text_ids, TokenKind.TEXT, is_target=True)).example(Task.ASR, key, audio)

    def repeat(self, key: str, text_ids: list[int], num_places: int, rng: np.random.Generator) -> Example:
        """``num_places`` positions stand between the wrappers; the text keeps its order in a random choice of them."""
        if num_places < len(text_ids):
            raise ContractError(f"repeat of {len(text_ids)} tokens in {num_places} places; give each token a place")
        chosen = np.sort(rng.choice(num_places, size=len(text_ids), replace=False))
        places = np.full(num_places, self.vocabulary.special(PATCH_PAD), dtype=np.int64)
        kinds = np.full(num_places, TokenKind.SPECIAL, dtype=np.uint8)
        places[chosen], kinds[chosen] = text_ids, TokenKind.TEXT
        layout = Layout(self._weights_K).add([self.vocabulary.audio_start], TokenKind.SPECIAL)
        layout.add(places, kinds).add([self.vocabulary.audio_end], TokenKind.SPECIAL)
        return self._ended(layout.add(text_ids, TokenKind.TEXT, is_target=True)).example(Task.REPEAT, key)

    def tts(self, key: str, text_ids: list[int], codes: np.ndarray) -> Example:
        layout = Layout(self._weights_K).add(text_ids, TokenKind.TEXT).add([self.vocabulary.tts_start], TokenKind.SPECIAL)
        spoken, kinds = interleave(text_ids, codes, self.vocabulary, self.ratio)
        layout.add(spoken, kinds, is_target=True)
        layout.add([self.vocabulary.tts_end], TokenKind.SPECIAL, is_target=True)
        return self._ended(layout).example(Task.TTS, key)

    def of_document(self, task: Task, document: Document, text_ids: list[int]) -> Example:
        """The example of a document for a task that reads its audio or codes. Raises ContractError when they are missing."""
        if task is Task.TTS and document.codes is not None:
            return self.tts(document.key, text_ids, document.codes)
        if task is Task.ASR and document.audio is not None:
            return self.asr(document.key, text_ids, document.audio)
        if task is Task.CTC and document.audio is not None:
            return self.ctc(document.key, text_ids, document.audio)
        raise ContractError(
            f"document {document.key!r} lacks what task {task.value!r} reads; the manifest says otherwise: pack again"
        )

    def _ended(self, layout: Layout) -> Layout:
        return layout.add([self.vocabulary.end_of_text], TokenKind.SPECIAL, is_target=True)


def recombine(texts: list[tuple[int, ...]], recipe: RepeatRecipe, rng: np.random.Generator) -> list[int]:
    """Token ids of 1 to ``max_spans`` random spans of random texts, each of 1 to ``max_span_tokens`` tokens.

    Copying these cannot be learned by heart, so the decoder has to learn to copy.
    """
    ids: list[int] = []
    for _ in range(rng.integers(1, recipe.max_spans + 1)):
        text = texts[rng.integers(len(texts))]
        length = int(rng.integers(1, min(recipe.max_span_tokens, len(text)) + 1))
        start = int(rng.integers(len(text) - length + 1))
        ids.extend(text[start : start + length])
    return ids
