"""What a codec learns from: the clips of a corpus with their words, and which of them are held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from manifests.audio import resample
from manifests.clip_texts import SOURCE, first_texts, text_columns, text_needs
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.ids import digest_json
from manifests.open_rows import corpus_rows
from manifests.snapshots import layer_output

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


def clip_texts(corpus: Corpus, text_from: Sequence[str]) -> list[str | None]:
    """A text for each clip from the first origin that has one (``manifests.clip_texts``).

    Raises RequestError for a layer that is not there, lacks units, or has no column ``text``.
    """
    rows, units = corpus_rows(corpus), corpus.snapshot.units
    for layer in (origin for origin in text_from if origin != SOURCE):
        if layer not in corpus.layers():
            raise RequestError(
                f"codec.training takes text from layer {layer!r}; the corpus has {sorted(corpus.layers())}. "
                "Build it with that layer, or mend codec.training.text_from"
            )
        if lacking := sum(not corpus.has(layer_output(corpus.clip_set, layer), unit) for unit in units):
            raise RequestError(f"layer {layer!r} lacks {lacking} of {len(units)} units; build again to finish it")
        if units and f"{layer}.text" not in rows.schema.names:
            raise RequestError(f"layer {layer!r} has no column 'text'; mend codec.training.text_from")
    needs = text_needs(text_columns(text_from))
    tables = (rows.read(part, needs) for part in rows.slices)
    return [text for table in tables for text in first_texts(table, text_from)[0].to_pylist()]


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
