"""The eleven dimensions of a clip in one row: what classifiers say, put together, and what is measured.

Classifiers of one dimension vote (``vote``). A value is stated where it is the best label of the mean, of more than half of the
voters, and the stated value of at least one: where all abstain, so does the vote. Where no classifier states a value, a
measured one does: pitch, speaking speed, rhythm, a whisper, speech and silence, but none in music and steady noise. Timbre,
scenario, event, emotion, gender and age are never guessed from the signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import pyarrow as pa
from pydantic import Field, model_validator

from annotators.paralinguistics_schema import DIMENSIONS, LABELS, TAG, Dimension, best_label, is_label, posterior_value, vote
from annotators.scripts import SPACELESS
from annotators.style import level
from manifests.contracts import ClipBatch, Hearing, ModelFact, Resources
from manifests.errors import RequestError
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

Row = Mapping[str, Any]
MIN_SPEECH_S = 0.5  # less is too little to measure anything of
MIN_SPEECH_SHARE = 0.2  # of a clip: where VAD hears less, pitch and rate are mostly of what is no speech
SILENT_RATIO = 0.99  # of the clip's frames


def _described(dimension: Dimension) -> str:
    known = LABELS[dimension]
    return (
        f"{dimension.replace('_', ' ')}: {' | '.join(known)}"
        if known
        else f"{dimension.replace('_', ' ')}, an open set of labels"
    )


ADDS = pa.schema(
    [
        *(field(dimension, TAG, f"{_described(dimension)}; null when abstained") for dimension in DIMENSIONS),
        field("age_years", pa.float32(), "expected age, mean of the classifiers that state the age; null where none tells years"),
    ]
)


class SpeedBorders(NamedTuple):
    """Words a second of speech (characters where the language has no spaces): below the first slow, from the second on fast."""

    slow_hz: float
    fast_hz: float


class ParalinguisticsConfig(AnnotatorConfigBase):
    """Who speaks for what. Names are those of the recipe's layers; null leaves a measurement out.

    Speed by words: Tauroza and Allison, "Speech rates in British English" (1990), interviews, 160 to 210 words a minute; Mandarin
    news is read at 240 to 300 characters a minute. Borders of rhythm are the terciles of
    read English by 125 speakers (benchmarks/quality/rate.py).
    """

    kind: Literal["paralinguistics"] = "paralinguistics"
    style: str | None = Field(default="style", description="layer of style: pitch, and speed where no words are known")
    prosody: str | None = Field(default="prosody", description="layer of prosody: a whisper is speech without voice")
    rhythm: str | None = Field(default="rhythm", description="layer of rhythm")
    signal: str | None = Field(default="signal", description="layer of signal: silence")
    asr: str | None = Field(default=None, description="layer of an ASR with words: speed in words a second")
    sound_gate: str | None = Field(
        default=None,
        description="layer of sound_gate: in music and steady noise nothing of a voice is measured, whatever VAD hears",
    )
    classifiers: dict[Dimension, list[str]] = Field(default={}, description="dimension -> layers of classifiers that vote on it")
    speeds: dict[str, SpeedBorders] = Field(
        default={"en": SpeedBorders(160 / 60, 210 / 60), "zh": SpeedBorders(200 / 60, 300 / 60)},
        description="language -> borders of slow and fast; other languages go by syllables",
    )
    rhythm_even_npvi: float = Field(default=44.0, ge=0, description="below: even")
    rhythm_varied_npvi: float = Field(default=55.0, ge=0, description="from here on: varied")
    halting_pause_ratio: float = Field(default=0.25, gt=0, lt=1, description="with two pauses and more, from here on: halting")
    whisper_voiced_ratio: float = Field(default=0.1, ge=0, description="speech of which less is voiced is whispered")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rhythm_even_npvi >= self.rhythm_varied_npvi:
            raise ValueError(
                f"rhythm_even_npvi = {self.rhythm_even_npvi} must be below rhythm_varied_npvi = {self.rhythm_varied_npvi}"
            )
        for dimension, layers in self.classifiers.items():
            if not layers or len(set(layers)) < len(layers):
                raise ValueError(f"classifiers.{dimension} = {layers}: name at least one layer, and none twice")
        return self

    def build(self) -> Paralinguistics:
        return Paralinguistics(self)


class Paralinguistics:
    """Annotator: eleven tags a clip; a tag is null where nobody speaks for it, its value where who speaks abstains."""

    name = "paralinguistics"
    version = "2"
    hears = Hearing.NOTHING
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=256 << 20)

    def __init__(self, config: ParalinguisticsConfig) -> None:
        self.config = config

    @property
    def reads(self) -> tuple[str, ...]:
        c = self.config
        measured = [name for name in (c.style, c.prosody, c.rhythm, c.signal, c.asr, c.sound_gate) if name]
        return tuple(dict.fromkeys(["clip", *measured, *(layer for layers in c.classifiers.values() for layer in layers)]))

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        layers = {name: batch.layers[name].to_pylist() for name in self.reads}
        rows = [self._row({name: rows[i] for name, rows in layers.items()}) for i in range(len(batch))]
        return batch.table(rows, self.adds)

    def _row(self, facts: Mapping[str, Row]) -> dict[str, Any] | None:
        measured = self._measured(facts)
        tags: dict[str, Any] = {}
        for dimension in DIMENSIONS:
            heard = [facts[layer] for layer in self.config.classifiers.get(dimension, ())]
            tag = voted(dimension, heard)
            if dimension in measured and (tag is None or tag["value"] is None):
                value, source = measured[dimension]
                tag = {"value": value, "source": source}
            tags[dimension] = tag
        if not any(tags.values()):
            return None
        ages = [facts[layer]["age_years"] for layer in self.config.classifiers.get("age", ())]
        years = [age for age in ages if age is not None]
        stated = bool(years) and bool(tags["age"]) and tags["age"]["value"] is not None
        return {**tags, "age_years": sum(years) / len(years) if stated else None}

    def _measured(self, facts: Mapping[str, Row]) -> dict[Dimension, tuple[str, str]]:
        """Dimension -> (label, layer that it is measured in). Without speech nothing of it is measured but that."""
        c, clip = self.config, facts["clip"]
        if _speech_s(clip) < MIN_SPEECH_S or _speech_share(clip) < MIN_SPEECH_SHARE:
            is_silent = c.signal and not clip["speech_samples"] and (facts[c.signal]["silence_ratio"] or 0.0) >= SILENT_RATIO
            return {"vocal_activity": ("silence", str(c.signal))} if is_silent else {}
        if c.sound_gate and (facts[c.sound_gate]["is_music"] or facts[c.sound_gate]["is_steady"]):
            return {}
        found: dict[Dimension, tuple[str, str]] = {"vocal_activity": ("speech", "clip")}
        is_whispered = c.prosody is not None and self._is_whispered(clip, facts[c.prosody])
        if c.prosody and is_whispered:
            found["speaking_style"] = "whispered", c.prosody
        if c.asr and (words := self._speed_of_words(clip, facts[c.asr])):
            found["speaking_speed"] = words, c.asr
        elif c.style and not is_whispered and (syllables := facts[c.style]["rate_level"]):  # syllables are counted by voice
            found["speaking_speed"] = syllables, c.style
        if c.style and (pitch := facts[c.style]["pitch_level"]):
            found["pitch"] = pitch, c.style
        if c.rhythm and (rhythm := self._rhythm(facts[c.rhythm])):
            found["rhythm"] = rhythm, c.rhythm
        return found

    def _speed_of_words(self, clip: Row, heard: Row) -> str | None:
        """By words a second of speech that VAD hears, those without a time too; None without words or borders of the language."""
        borders = self.config.speeds.get(heard["language"] or "")
        if borders is None or not heard["words"]:
            return None
        words = [word["word"] for word in heard["words"]]
        timed = sum(map(_num_characters, words)) if heard["language"] in SPACELESS else len(words)
        num = timed + (heard.get("num_unaligned_words") or 0)
        return level(num / _speech_s(clip), borders.slow_hz, borders.fast_hz, ("slow", "normal", "fast"))

    def _rhythm(self, facts: Row) -> str | None:
        c = self.config
        if (facts["num_pauses"] or 0) >= 2 and facts["pause_ratio"] >= c.halting_pause_ratio:
            return "halting"
        return level(facts["npvi"], c.rhythm_even_npvi, c.rhythm_varied_npvi, ("even", "moderate", "varied"))

    def _is_whispered(self, clip: Row, prosody: Row) -> bool:
        """Hardly any of the speech is voiced. ``voiced_ratio`` is of the whole clip, speech or not."""
        if prosody["voiced_ratio"] is None:
            return False
        return bool(prosody["voiced_ratio"] < self.config.whisper_voiced_ratio * _speech_share(clip))


def voted(dimension: Dimension, heard: Sequence[Row]) -> dict[str, Any] | None:
    """A value of TAG from rows of CLASSIFIER_ADDS; None where none of them has a posterior.

    Raises RequestError where a layer is no classifier's, or states what is no label of the dimension.
    """
    for row in heard:
        if "posterior" not in row:
            raise RequestError(f"classifiers.{dimension}: a layer has no posterior; name layers of classifiers")
        if row["value"] is not None and not is_label(dimension, row["value"]):
            raise RequestError(
                f"classifiers.{dimension}: a layer says {row['value']!r}, which is no {dimension}; it speaks for another"
            )
    spoke = [row for row in heard if row["posterior"]]
    posteriors = [{entry["label"]: entry["prob"] for entry in row["posterior"]} for row in spoke]
    mean = vote(posteriors) if spoke else {}
    if not mean:
        return None
    best = best_label(mean)
    agreement = sum(best_label(posterior) == best for posterior in posteriors) / len(posteriors)
    is_stated = agreement > 0.5 and any(row["value"] == best for row in spoke)
    return {
        "value": best if is_stated else None,
        "confidence": mean[best],
        "posterior": posterior_value(mean),
        "agreement": agreement,
        "source": " + ".join(row["source"] for row in spoke),
    }


def _speech_s(clip: Row) -> float:
    return float(clip["speech_samples"] / clip["sample_rate_hz"])


def _speech_share(clip: Row) -> float:
    return float(clip["speech_samples"] / max(1, clip["end_sample"] - clip["start_sample"]))


def _num_characters(word: str) -> int:
    return sum(character.isalnum() for character in word)
