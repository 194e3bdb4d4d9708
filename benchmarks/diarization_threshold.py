"""Chooses the diarization settings on the test data's reference conversations, then scores the shipped one, once.

    python benchmarks/diarization_threshold.py [--testdata ../shared/testdata] [--json FILE]

DER has no collar and scores overlap. The settings with the least mean DER over the clips win (every clip counts
alike, or the longest would decide); the pyannote sample takes no part in the choice. The networks run once for each
clip and segmentation threshold; only clustering and reconstruction run for each combination.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile

from annotators.diarization import Diarization, DiarizationConfig
from annotators.weights import packaged_path
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan
from manifests.scoring import Turn, read_rttm, score_diarization

# Clustering thresholds a method, in steps of 0.025: cosine distance for average, Euclidean between unit vectors for centroid.
THRESHOLDS: dict[Literal["average", "centroid"], tuple[float, ...]] = {
    "average": tuple(round(0.2 + 0.025 * i, 3) for i in range(11)),
    "centroid": tuple(round(0.45 + 0.025 * i, 3) for i in range(9)),
}
SEGMENTATION_THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
MIN_CLUSTER_SIZES = (2, 4, 8, 12)
MIN_PAUSES_S = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class Conversation:
    """One channel with its reference turns."""

    name: str
    audio: Audio  # [S] at MODEL_RATE_HZ
    turns: list[Turn]


def channel_turns(path: str, channel: int) -> list[Turn]:
    """Turns of an RTTM file on one channel, counted from 1."""
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.startswith("SPEAKER")]
    return [Turn(float(r[3]), float(r[3]) + float(r[4]), r[7]) for r in rows if int(r[2]) == channel]


def reference_conversations(folder: str) -> list[Conversation]:
    """Every clip of the test data with an RTTM; a clip with a talker on each channel counts as one for each."""
    found = []
    with open(os.path.join(folder, "manifest.jsonl"), encoding="utf-8") as file:
        clips = [clip for clip in map(json.loads, file) if clip.get("rttm")]
    for clip in clips:
        audio, rate = soundfile.read(os.path.join(folder, clip["path"]), dtype="float32", always_2d=True)
        for channel in range(audio.shape[1]):
            turns = channel_turns(os.path.join(folder, clip["rttm"]), channel + 1)
            name = clip["id"] if audio.shape[1] == 1 else f"{clip['id']}:{channel}"
            found.append(Conversation(name, resample(np.ascontiguousarray(audio[:, channel]), rate, MODEL_RATE_HZ), turns))
    return found


def sample_conversation() -> Conversation:
    """The conversation that ships in pyannote.audio."""
    folder = packaged_path("pyannote", "audio", "sample")
    audio, _ = soundfile.read(os.path.join(folder, "sample.wav"), dtype="float32")
    return Conversation("pyannote sample", audio, read_rttm(os.path.join(folder, "sample.rttm")))


def error_rate(conversation: Conversation, heard: Sequence[HeardSpan]) -> dict[str, float]:
    """DER and its parts over the whole channel, each as a share of the reference speech; no collar, overlap scored."""
    turns = [Turn(t.span.start_sample / MODEL_RATE_HZ, t.span.end_sample / MODEL_RATE_HZ, t.speaker_label or "") for t in heard]
    score = score_diarization(conversation.name, conversation.turns, turns, len(conversation.audio) / MODEL_RATE_HZ)
    parts = {"der": score.error_s, "missed": score.missed_s, "false_alarm": score.false_alarm_s, "confusion": score.confusion_s}
    return {name: seconds / score.reference_s for name, seconds in parts.items()}


class CachedNetworks:
    """A diarization whose networks answer from memory where they heard the clip before, for any clustering."""

    def __init__(self) -> None:
        self._part = Diarization(DiarizationConfig())
        self._part.setup()
        pipeline = self._part._pipeline
        self._pipeline, self._clip = pipeline, ""
        self._answers: dict[Any, Any] = {}
        segment, embed = pipeline.get_segmentations, pipeline.get_embeddings

        def segmentations(file: Any, hook: Any = None) -> Any:
            return self._recall((self._clip,), lambda: segment(file, hook=hook))

        def embeddings(file: Any, binary: Any, exclude_overlap: bool = True, hook: Any = None) -> Any:
            key = (self._clip, pipeline.segmentation.threshold)
            return self._recall(key, lambda: embed(file, binary, exclude_overlap, hook)).copy()

        pipeline.get_segmentations, pipeline.get_embeddings = segmentations, embeddings

    def _recall(self, key: Any, compute: Any) -> Any:
        if key not in self._answers:
            self._answers[key] = compute()
        return self._answers[key]

    def segment(self, conversation: Conversation, config: DiarizationConfig) -> list[HeardSpan]:
        self._clip, self._part.config = conversation.name, config
        self._part.configure(self._pipeline)
        return self._part.segment(ChannelAudio(b"", 0, conversation.audio))


def sweep(conversations: Sequence[Conversation]) -> list[tuple[float, float, DiarizationConfig]]:
    """(mean DER of the threshold and its neighbours, mean DER, settings), best first.

    A setting is judged together with its neighbouring thresholds, or a lucky spike between two poor ones would win.
    """
    networks = CachedNetworks()
    found = []
    for segmentation, method, size, pause in itertools.product(
        SEGMENTATION_THRESHOLDS, THRESHOLDS, MIN_CLUSTER_SIZES, MIN_PAUSES_S
    ):
        configs = [
            DiarizationConfig(
                clustering_threshold=threshold,
                clustering_method=method,
                min_cluster_size=size,
                segmentation_threshold=segmentation,
                min_pause_s=pause,
            )
            for threshold in THRESHOLDS[method]
        ]
        ders = [float(np.mean([error_rate(c, networks.segment(c, x))["der"] for c in conversations])) for x in configs]
        smooth = [float(np.mean(ders[i - 1 : i + 2])) for i in range(1, len(ders) - 1)]
        found += list(zip(smooth, ders[1:-1], configs[1:-1], strict=True))
    return sorted(found, key=lambda row: row[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--testdata", default=os.path.join("..", "shared", "testdata"))
    parser.add_argument("--json", help="also write the figures here")
    arguments = parser.parse_args()
    conversations = reference_conversations(arguments.testdata)
    ranked = sweep(conversations)
    for smooth, der, config in ranked[:12]:
        print(f"{smooth:.4f} {der:.4f} {config.model_dump(exclude={'kind', 'segmentation_step', 'stretch_s'})}")
    chosen = ranked[0][2]
    part = chosen.build()
    scores = {}
    for conversation in [*conversations, sample_conversation()]:
        scores[conversation.name] = error_rate(conversation, part.segment(ChannelAudio(b"", 0, conversation.audio)))
        print(conversation.name, {name: round(value, 4) for name, value in scores[conversation.name].items()})
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"chosen": chosen.model_dump(mode="json"), "scores": scores}, file, indent=2)


if __name__ == "__main__":
    main()
