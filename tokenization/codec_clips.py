"""What a codec learns from: the clips of a corpus with their words, and which of them are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.ids import digest_json

SOURCE_TEXT = "source"
HELD_OUT_FROM_CLIPS = 10
HELD_OUT_EVERY = 10


class SpokenClip(NamedTuple):
    """Audio float32 ``[S]`` at 16 kHz, and what is said in it where that is known."""

    audio: Audio
    text: str | None


class CorpusClips:
    """The clips of a corpus in clip order; of a larger corpus a seeded sample of at most ``max_audio_s``.

    Audio is read as it is iterated over. Raises RequestError for a layer of texts that is not there.
    """

    def __init__(self, corpus: Corpus, text_from: Sequence[str], max_audio_s: float, seed: int) -> None:
        self._corpus, self._rows = corpus, corpus.clips().to_pylist()
        self._texts = clip_texts(corpus, text_from)
        lengths_s = [(row["end_sample"] - row["start_sample"]) / row["sample_rate_hz"] for row in self._rows]
        self._chosen = sample_clips(lengths_s, max_audio_s, seed)

    @property
    def texts_digest(self) -> str:
        """Hex digest over the words of all clips, in clip order."""
        return digest_json(self._texts)

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[SpokenClip]:
        reader = self._corpus.audio()
        for index in self._chosen:
            row = self._rows[index]
            rate = row["sample_rate_hz"]
            audio = reader.read(row["recording_id"], row["channel"], rate, row["start_sample"], row["end_sample"])
            yield SpokenClip(resample(audio, rate, MODEL_RATE_HZ), self._texts[index])


def clip_texts(corpus: Corpus, text_from: Iterable[str]) -> list[str | None]:
    """A text for each clip from the first origin that has one; ``source`` is the transcript that came with the input.

    A source's transcript speaks of the whole input: it fits a recording's single clip only. Raises RequestError for a layer
    that is not there or has no column ``text``.
    """
    recordings = corpus.clips().column("recording_id").to_pylist()
    found: list[str | None] = [None] * len(recordings)
    for origin in text_from:
        texts = _source_texts(corpus, recordings) if origin == SOURCE_TEXT else _layer_texts(corpus, origin)
        found = [before or (text or "").strip() or None for before, text in zip(found, texts, strict=True)]
    return found


def _source_texts(corpus: Corpus, recordings: Sequence[bytes]) -> list[str | None]:
    inputs, num_clips = corpus.inputs(), Counter(recordings)
    told = zip(inputs.column("recording_id").to_pylist(), inputs.column("text").to_pylist(), strict=True)
    texts = {recording: text for recording, text in told if text}
    return [texts.get(recording) if num_clips[recording] == 1 else None for recording in recordings]


def _layer_texts(corpus: Corpus, layer: str) -> list[str | None]:
    if layer not in corpus.layers():
        raise RequestError(
            f"codec.training takes text from layer {layer!r}; the corpus has {sorted(corpus.layers())}. "
            "Build it with that layer, or mend codec.training.text_from"
        )
    rows = corpus.layer(layer)
    if "text" not in rows.column_names:
        raise RequestError(f"layer {layer!r} has no column 'text' (it has {rows.column_names}); mend codec.training.text_from")
    return list(rows.column("text").to_pylist())


def sample_clips(lengths_s: Sequence[float], max_audio_s: float, seed: int) -> list[int]:
    """Sorted indexes of clips that together last at most ``max_audio_s``; all of them where they fit."""
    chosen: list[int] = []
    room_s = max_audio_s
    for index in np.random.default_rng(seed).permutation(len(lengths_s)).tolist():
        if lengths_s[index] <= room_s:
            chosen.append(index)
            room_s -= lengths_s[index]
    return sorted(chosen)


def split_clips(num_clips: int) -> tuple[list[int], list[int]]:
    """(clips to learn from, clips held out): every tenth is held out once there are ten."""
    if num_clips < HELD_OUT_FROM_CLIPS:
        return list(range(num_clips)), []
    held_out = list(range(HELD_OUT_EVERY - 1, num_clips, HELD_OUT_EVERY))
    return sorted(set(range(num_clips)) - set(held_out)), held_out
