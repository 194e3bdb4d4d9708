"""Style tags derived from prosody: pitch, pitch range, rate and loudness in words. Reads the layer, hears nothing."""

from __future__ import annotations

from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from manifests.contracts import ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

ADDS = pa.schema(
    [
        field("pitch_level", pa.string(), "low | mid | high, by the median pitch; null where prosody has none"),
        field("pitch_range", pa.string(), "flat | moderate | lively, by the standard deviation of pitch in semitones"),
        field("rate_level", pa.string(), "slow | normal | fast, by syllables a second of speaking time"),
        field("loudness_level", pa.string(), "quiet | normal | loud, by integrated loudness"),
    ]
)


class StyleConfig(AnnotatorConfigBase):
    """Where one word ends and the next begins: below ``low`` the first, from ``high`` on the third.

    The levels are absolute, so ``pitch_level`` follows the speaker's voice (low for most men, high for most children),
    and ``loudness_level`` the recording's gain; neither is a statement about what the speaker meant.
    """

    kind: Literal["style"] = "style"
    pitch_low_hz: float = Field(default=140.0, gt=0, description="below: low")
    pitch_high_hz: float = Field(default=220.0, gt=0, description="from here on: high")
    range_flat_semitones: float = Field(default=2.0, ge=0, description="below: flat")
    range_lively_semitones: float = Field(default=4.0, ge=0, description="from here on: lively")
    rate_slow_hz: float = Field(default=3.0, ge=0, description="below: slow")
    rate_fast_hz: float = Field(default=5.0, ge=0, description="from here on: fast")
    loudness_quiet_lufs: float = Field(default=-35.0, description="below: quiet")
    loudness_loud_lufs: float = Field(default=-18.0, description="from here on: loud")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low, high in (
            ("pitch_low_hz", "pitch_high_hz"),
            ("range_flat_semitones", "range_lively_semitones"),
            ("rate_slow_hz", "rate_fast_hz"),
            ("loudness_quiet_lufs", "loudness_loud_lufs"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} must be below {high} = {getattr(self, high)}")
        return self

    def build(self) -> Style:
        return Style(self)


class Style:
    """Annotator: four tags a clip, each null where its fact is; abstains on the row when all are."""

    name = "style"
    version = "1"
    hears = Hearing.NOTHING
    reads: tuple[str, ...] = ("prosody",)
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=128 << 20)

    def __init__(self, config: StyleConfig) -> None:
        self.config = config

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        facts = batch.layers["prosody"].to_pylist()
        return batch.table([self._tags(row) for row in facts], self.adds)

    def _tags(self, facts: dict[str, Any]) -> dict[str, str | None] | None:
        c = self.config
        tags = {
            "pitch_level": level(facts["pitch_hz"], c.pitch_low_hz, c.pitch_high_hz, ("low", "mid", "high")),
            "pitch_range": level(
                facts["pitch_std_semitones"], c.range_flat_semitones, c.range_lively_semitones, ("flat", "moderate", "lively")
            ),
            "rate_level": level(facts["syllable_rate_hz"], c.rate_slow_hz, c.rate_fast_hz, ("slow", "normal", "fast")),
            "loudness_level": level(
                facts["loudness_lufs"], c.loudness_quiet_lufs, c.loudness_loud_lufs, ("quiet", "normal", "loud")
            ),
        }
        return tags if any(tags.values()) else None


def level(value: float | None, low: float, high: float, words: tuple[str, str, str]) -> str | None:
    """The first word below ``low``, the third from ``high`` on, the second between; None for no value."""
    if value is None:
        return None
    return words[0] if value < low else words[2] if value >= high else words[1]
