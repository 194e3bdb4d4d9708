"""One English and one Chinese sentence about how a clip sounds: paralinguistic captioning (report, 3.3).

Only what is known is said; a dimension that is null is not mentioned. The order of the clauses and the words of each come from
the clip's id, so that a clip has one caption for ever, and a corpus not one sentence over and over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from annotators import caption_words as words
from annotators.paralinguistics_schema import DIMENSIONS, OTHER
from manifests.contracts import ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

ADDS = pa.schema(
    [
        field("caption_en", pa.string(), "one English sentence; null where nothing is known that it could say"),
        field("caption_zh", pa.string(), "the same in Chinese (simplified)"),
    ]
)


class CaptionConfig(AnnotatorConfigBase):
    """Captions out of tags."""

    kind: Literal["caption"] = "caption"
    paralinguistics: str = Field(default="paralinguistics", description="layer of paralinguistics that is put into words")

    def build(self) -> Caption:
        return Caption(self)


class Caption:
    """Annotator: two sentences a clip; abstains where no tag is known."""

    name = "caption"
    version = "2"
    hears = Hearing.NOTHING
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=128 << 20)

    def __init__(self, config: CaptionConfig) -> None:
        self.config = config

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.config.paralinguistics,)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        facts = batch.layers[self.config.paralinguistics].to_pylist()
        ids = batch.clips["clip_id"].to_pylist()
        return batch.table([self._row(known(row), clip_id) for row, clip_id in zip(facts, ids, strict=True)], self.adds)

    def _row(self, tags: Mapping[str, str], clip_id: bytes) -> dict[str, Any] | None:
        draw = int.from_bytes(clip_id[:8], "little")  # an id is a digest: as good as drawn
        sentences = {"caption_en": english(tags, draw), "caption_zh": chinese(tags, draw)}
        return sentences if any(sentences.values()) else None


class Phrasing:
    """Choices among phrasings, all drawn from one number: 0 takes the first of each."""

    def __init__(self, draw: int) -> None:
        self._left = draw

    def of(self, options: Sequence[str]) -> str:
        self._left, at = divmod(self._left, len(options))
        return options[at]


def known(row: Mapping[str, Any]) -> dict[str, str]:
    """Dimension -> value of those that are stated."""
    return {dimension: row[dimension]["value"] for dimension in DIMENSIONS if row[dimension] and row[dimension]["value"]}


def english(tags: Mapping[str, str], draw: int) -> str | None:
    """One sentence for labels by dimension, ``draw`` >= 0 choosing among phrasings; None where there is nothing to say."""
    phrasing = Phrasing(draw)
    place = _place_en(tags["scenario"]) if "scenario" in tags else ""
    event = _event_en(tags["event"]) if "event" in tags else ""
    if not _is_voice(tags):
        if event:
            return _sentence(" ".join(filter(None, [event, "can be heard", place])))
        if place:
            return _sentence(f"the recording was made {place}")
        return "Nothing can be heard." if tags.get("vocal_activity") == "silence" else None
    order = phrasing.of(words.ORDERS_EN)
    act = " ".join([phrasing.of(words.WHO_EN[tags.get("gender", ""), tags.get("age", "")]), _does_en(tags, phrasing)])
    manner = " ".join(filter(None, [_voice_en(tags, phrasing), *_delivery_en(tags, phrasing)]))
    emotion = words.EMOTION_EN.get(tags.get("emotion", ""))
    feeling = phrasing.of(words.FEELING_EN).format(emotion) if emotion else ""
    background = phrasing.of(words.BACKGROUND_EN).format(event) if event else ""
    if order == "manner first" and manner:
        clauses = [manner, act, feeling]
    elif order == "feeling first" and feeling:
        clauses = [feeling, f"{act} {manner}".strip()]
    else:
        opening = "in this recording" if order == "recording first" else ""
        clauses = [opening, f"{act} {manner}".strip(), feeling]
    return _sentence(", ".join(filter(None, [*clauses, place, background])))


def chinese(tags: Mapping[str, str], draw: int) -> str | None:
    """The same in Chinese; a label of an open dimension that has no Chinese word is left out."""
    phrasing = Phrasing(draw)
    place = words.SCENARIO_ZH.get(tags.get("scenario", ""), "")
    event = words.EVENT_ZH.get(tags.get("event", ""), "")
    if not _is_voice(tags):
        if event:
            return f"{place and f'在{place}，'}可以听到{event}。"
        if place:
            return f"录音是在{place}录制的。"
        return "没有任何声音。" if tags.get("vocal_activity") == "silence" else None
    opening, is_voice_first = phrasing.of(words.OPENINGS_ZH), phrasing.of(words.ORDERS_ZH) == "voice first"
    who = phrasing.of(words.WHO_ZH[tags.get("gender", ""), tags.get("age", "")])
    does = words.DOES_ZH.get(tags.get("vocal_activity", ""), "耳语" if tags.get("speaking_style") == "whispered" else "说话")
    act = f"{who}在{place}{does}" if place else f"{who}正在{does}"
    known_words = (words.SPEED_ZH.get(tags.get("speaking_speed", "")), words.RHYTHM_ZH.get(tags.get("rhythm", "")))
    delivery = [phrasing.of(options) for options in known_words if options and _is_speaking(tags)]
    style = words.STYLE_ZH.get(tags.get("speaking_style", ""))
    timbre, emotion = words.TIMBRE_ZH.get(tags.get("timbre", "")), words.EMOTION_ZH.get(tags.get("emotion", ""))
    pitch = words.PITCH_ZH.get(tags.get("pitch", ""))
    voice = [phrasing.of(pitch) if pitch else None, f"音色{timbre}" if timbre else None]
    clauses = [
        opening + act,
        *((*voice, *delivery) if is_voice_first else (*delivery, *voice)),
        f"说话风格为{style}" if style and _is_speaking(tags) else None,
        phrasing.of(words.FEELING_ZH).format(emotion) if emotion else None,
        phrasing.of(words.BACKGROUND_ZH).format(event) if event else None,
    ]
    return "，".join(filter(None, clauses)) + "。"


def _is_voice(tags: Mapping[str, str]) -> bool:
    """Whether anything is known of a voice."""
    of_voice = {"gender", "age", "timbre", "emotion", "pitch", "rhythm", "speaking_speed", "speaking_style"}
    return bool(of_voice & tags.keys()) or tags.get("vocal_activity", "silence") not in ("silence", OTHER)


def _is_speaking(tags: Mapping[str, str]) -> bool:
    """A cough has no speed and no rhythm of speech."""
    return tags.get("vocal_activity", "speech") in ("speech", "singing")


def _does_en(tags: Mapping[str, str], phrasing: Phrasing) -> str:
    does = words.DOES_EN.get(
        tags.get("vocal_activity", ""), "whispers" if tags.get("speaking_style") == "whispered" else "speaks"
    )
    speed = words.SPEED_EN.get(tags.get("speaking_speed", "")) if _is_speaking(tags) else None
    return f"{does} {phrasing.of(speed)}" if speed else does


def _voice_en(tags: Mapping[str, str], phrasing: Phrasing) -> str:
    """``in a low-pitched, warm voice``; empty where neither pitch nor timbre is known."""
    pitch, timbre = words.PITCH_EN.get(tags.get("pitch", "")), tags.get("timbre", "").replace("_", " ")
    described = ", ".join(filter(None, [phrasing.of(pitch) if pitch else None, timbre]))
    return f"in {_with_article(described)} voice" if described else ""


def _delivery_en(tags: Mapping[str, str], phrasing: Phrasing) -> list[str]:
    """Rhythm and style of speech."""
    if not _is_speaking(tags):
        return []
    rhythm, style = words.RHYTHM_EN.get(tags.get("rhythm", "")), tags.get("speaking_style", "whispered").replace("_", " ")
    return [
        *([f"with {phrasing.of(rhythm)}"] if rhythm else []),
        *([f"in {_with_article(style)} style"] if style != "whispered" else []),
    ]


def _place_en(label: str) -> str:
    return words.SCENARIO_EN.get(label) or f"in a place described as “{label.replace('_', ' ')}”"


def _event_en(label: str) -> str:
    return words.EVENT_EN.get(label) or f"a sound described as “{label.replace('_', ' ')}”"


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
