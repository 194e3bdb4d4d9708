"""Conversations with reference turns, and a diarization whose networks hear each of them once, whatever the settings.

DER has no collar and scores overlap, over the whole channel.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from annotators.diarization import Diarization, DiarizationConfig
from annotators.signal import FRAME_S, frame_levels_db
from annotators.weights import packaged_path
from benchmarks.quality.material import Item, Material
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan
from manifests.scoring import DiarizationScore, Turn, read_rttm, score_diarization

FRAME_SAMPLES = round(FRAME_S * MODEL_RATE_HZ)


@dataclass(frozen=True)
class Conversation:
    """One channel with its reference turns."""

    name: str
    group: str  # what is left out together: pieces of one series of meetings share their speakers
    audio: Audio  # [S] at MODEL_RATE_HZ
    turns: list[Turn]
    looser_turns: list[Turn] | None = None  # AMI's other label file

    @property
    def is_ami(self) -> bool:
        return self.name.startswith("ami_")


def reference_conversations(material: Material) -> list[Conversation]:
    """Every clip of the test data with an RTTM; a clip with a talker on each channel counts as one for each."""
    found = []
    for item in material.testdata(lambda facts: bool(facts.get("rttm"))):
        audio_SC, rate = item.channels()
        group = item.name.removeprefix("ami_").split("_")[0].rstrip("abcd") if item.name.startswith("ami_") else item.name
        for channel in range(audio_SC.shape[1]):
            audio = resample(np.ascontiguousarray(audio_SC[:, channel]), rate, MODEL_RATE_HZ)
            turns, alternative = (
                _channel_turns(material.label_path(path), channel + 1) if (path := item.facts.get(key)) else None
                for key in ("rttm", "rttm_alt")
            )
            name = item.name if audio_SC.shape[1] == 1 else f"{item.name}, channel {channel}"
            found.append(Conversation(name, group, audio, turns or [], alternative))
    return found


def sample_conversation() -> Conversation:
    """The conversation that ships in pyannote.audio; no setting is ever chosen on it."""
    folder = packaged_path("pyannote", "audio", "sample")
    audio, _ = soundfile.read(f"{folder}/sample.wav", dtype="float32")
    return Conversation("pyannote sample", "sample", audio, read_rttm(f"{folder}/sample.rttm"))


def constructed_conversations(material: Material, count: int) -> list[Conversation]:
    """Read sentences of one to four readers in turn, a pause of 0.3 to 0.8 s between them; about 50 s each.

    A turn is a sentence without the silence at its ends (35 dB below its loud frames); pauses inside count as speech.
    """
    draw = random.Random(0)
    readers: dict[str, list[Item]] = {}
    for item in material.speech("read"):
        readers.setdefault(item.facts["speaker"], []).append(item)
    made = []
    for number in range(count):
        voices = draw.sample(sorted(readers), 1 + number % 4)
        audio, turns, at = [], [], 0
        for sentence in range(12):
            voice = voices[sentence % len(voices)]
            spoken = draw.choice(readers[voice]).audio()
            pause = np.zeros(int(draw.uniform(0.3, 0.8) * MODEL_RATE_HZ), np.float32)
            first, stop = _loud_ends(spoken)
            turns.append(Turn((at + first) / MODEL_RATE_HZ, (at + stop) / MODEL_RATE_HZ, voice))
            audio += [spoken, pause]
            at += len(spoken) + len(pause)
        noise = np.random.default_rng(number).normal(size=at).astype(np.float32) * 1e-4
        made.append(Conversation(f"readers {number}", f"readers {number}", np.concatenate(audio) + noise, turns))
    return made


def _loud_ends(audio_S: Audio) -> tuple[int, int]:
    """(first, stop) of the 20 ms frames within 35 dB of the loud ones."""
    levels = frame_levels_db(audio_S.astype(np.float64), MODEL_RATE_HZ)
    loud = np.flatnonzero(levels > np.percentile(levels, 95) - 35.0) * FRAME_SAMPLES
    return int(loud[0]), int(loud[-1]) + FRAME_SAMPLES


def _channel_turns(path: str, channel: int) -> list[Turn]:
    """Turns of an RTTM file on one channel, counted from 1."""
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.startswith("SPEAKER")]
    return [Turn(float(r[3]), float(r[3]) + float(r[4]), r[7]) for r in rows if int(r[2]) == channel]


def score(conversation: Conversation, heard: Sequence[HeardSpan], turns: Sequence[Turn] | None = None) -> DiarizationScore:
    """Against the conversation's turns, or others of it."""
    found = [Turn(h.span.start_sample / MODEL_RATE_HZ, h.span.end_sample / MODEL_RATE_HZ, h.speaker_label or "") for h in heard]
    duration_s = len(conversation.audio) / MODEL_RATE_HZ
    return score_diarization(conversation.name, conversation.turns if turns is None else turns, found, duration_s)


class CachedNetworks:
    """A diarization whose networks answer from memory where they heard the conversation before, for any clustering."""

    def __init__(self) -> None:
        self._part = Diarization(DiarizationConfig())
        self._part.setup()
        self._pipeline, self._name = self._part._pipeline, ""
        self._answers: dict[Any, Any] = {}
        pipeline = self._pipeline
        segment, embed = pipeline.get_segmentations, pipeline.get_embeddings

        def segmentations(file: Any, hook: Any = None) -> Any:
            return self._recall((self._name,), lambda: segment(file, hook=hook))

        def embeddings(file: Any, binary: Any, exclude_overlap: bool = True, hook: Any = None) -> Any:
            key = (self._name, pipeline.segmentation.threshold)
            return self._recall(key, lambda: embed(file, binary, exclude_overlap, hook)).copy()

        pipeline.get_segmentations, pipeline.get_embeddings = segmentations, embeddings

    def _recall(self, key: Any, compute: Any) -> Any:
        if key not in self._answers:
            self._answers[key] = compute()
        return self._answers[key]

    def segment(self, conversation: Conversation, config: DiarizationConfig) -> list[HeardSpan]:
        self._name, self._part.config = conversation.name, config
        self._part.configure(self._pipeline)
        return self._part.segment(ChannelAudio(b"", 0, conversation.audio))
