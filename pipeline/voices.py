"""Local speakers of a unit as voices: which clips each has, and what it sounds like.

The clips of a recording's channel that bear one ``speaker_label`` are one voice, and two labels there are two persons.
Where no label was given they are one voice too, as long as their embeddings agree (``speaker_linking.split_voices``):
diarization left the channel out for hearing one voice, or did not run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.ids import digest_bytes
from pipeline.speaker_linking import VoiceMeans, split_voices

FULL_WEIGHT_S = 30.0  # more speech than this says nothing new about a voice in one recording
COLUMNS = ["clip_id", "recording_id", "channel", "speaker_label"]  # of CLIPS
EMBEDDING = ["embedding", "embedded_s"]  # of a layer of speaker embeddings


@dataclass(frozen=True)
class Embeddings:
    """The embedded clips of a unit. Shape legend: C clips, M embedded clips, D width."""

    rows: np.ndarray  # int64 [C], where the clip's vector is; -1 where it has none
    vectors: np.ndarray  # float32 [M, D], unit vectors
    seconds: np.ndarray  # float64 [M], of the speech that each stands on

    @staticmethod
    def of(layer: pa.Table) -> Embeddings:
        """From a layer's columns EMBEDDING; both are null where the model abstained."""
        is_there_C = np.asarray(pc.is_valid(layer["embedding"]))
        found = layer.filter(pa.array(is_there_C))
        flat = np.asarray(pc.list_flatten(found["embedding"]), np.float32)
        vectors_MD = flat.reshape(found.num_rows, -1) if found.num_rows else np.zeros((0, 0), np.float32)
        row_C = np.where(is_there_C, np.cumsum(is_there_C) - 1, -1)
        return Embeddings(row_C, vectors_MD, np.asarray(found["embedded_s"], np.float64))


@dataclass(frozen=True)
class Voices:
    """The voices of a unit, in the order of their first clips. Shape legend: C clips, N voices, D width."""

    of_clips: np.ndarray  # int32 [C], the clip's voice; -1 where nothing tells
    ids: list[bytes]  # [N] digests of the ids of their clips
    sounds: VoiceMeans  # [N], of the clips' unit vectors by the seconds embedded; they weigh these seconds, at most FULL_WEIGHT_S
    scenes: list[tuple[bytes, int] | None]  # [N] the recording and channel in which it was labelled; None where it was not


def find_voices(clips: pa.Table, embeddings: Embeddings, threshold: float) -> Voices:
    """The voices among the clips of a unit (COLUMNS). A local speaker without an embedded clip is none."""
    clip_ids = clips["clip_id"].to_pylist()
    groups: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(*(clips[name].to_pylist() for name in COLUMNS[1:]), strict=True)):
        groups.setdefault(key, []).append(row)
    voice_C = np.full(len(clip_ids), -1, np.int32)
    ids, means, weights, selves = list[bytes](), list[np.ndarray](), list[float](), list[float]()
    scenes: list[tuple[bytes, int] | None] = []
    for (recording, channel, label), rows in groups.items():
        for members in _voices_of(rows, embeddings, threshold, is_labelled=label is not None):
            found = [int(embeddings.rows[row]) for row in members if embeddings.rows[row] >= 0]
            seconds_M = embeddings.seconds[found]
            voice_C[members] = len(ids)
            ids.append(digest_bytes(b"".join(clip_ids[row] for row in members)))
            total_s = float(seconds_M.sum())
            means.append(seconds_M @ embeddings.vectors[found] / total_s)
            weights.append(min(FULL_WEIGHT_S, total_s))
            selves.append(float((seconds_M**2).sum()) / total_s**2)
            scenes.append(None if label is None else (recording, channel))
    means_ND = np.stack(means).astype(np.float32) if means else np.zeros((0, embeddings.vectors.shape[1]), np.float32)
    return Voices(voice_C, ids, VoiceMeans(means_ND, np.array(weights), np.array(selves)), scenes)


def _voices_of(rows: list[int], embeddings: Embeddings, threshold: float, *, is_labelled: bool) -> Iterable[list[int]]:
    """The clips of each voice among those of one local speaker, or of an unlabelled channel."""
    embedded = [row for row in rows if embeddings.rows[row] >= 0]
    if not embedded:
        return []
    if is_labelled or len(embedded) == 1:
        return [rows]
    found = embeddings.rows[embedded]
    first = split_voices(embeddings.vectors[found], embeddings.seconds[found], threshold)
    if not first.any():
        return [rows]
    return [[row for row, voice in zip(embedded, first, strict=True) if voice == number] for number in np.unique(first)]
