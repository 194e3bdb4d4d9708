"""What decides the rows of made manifests: sizes, sources, and the defects that an audit must find."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from annotators import asr_schema, dnsmos, integrity, prosody, signal, style, text_facts
from manifests.schema import field

CLIP_SET = "made"
CLIPS_A_SPEAKER = 100  # on average
DRIFT_FROM = 0.9  # of the units
DNSMOS_DRIFT, SNR_DRIFT_DB = -0.3, -2.0
EARLIER = 0.02  # of the units, at the start, have dnsmos of an earlier model too
CODEC_HZ = 25.0


class Source(NamedTuple):
    """What the recordings of one source have in common."""

    name: str
    share: float  # of the units
    languages: tuple[str, ...]
    licence: str | None
    rate_hz: int
    dnsmos_ovrl: float
    snr_db: float
    synthesizer: str | None = None


SOURCES = (
    Source("podcasts", 0.30, ("en", "zh", "es", "de"), "CC-BY-4.0", 44_100, 3.1, 32.0),
    Source("lectures", 0.18, ("en", "zh", "fr"), "CC-BY-SA-4.0", 48_000, 2.8, 24.0),
    Source("audiobooks", 0.16, ("en", "de", "fr", "es", "ru"), "CC0-1.0", 24_000, 3.3, 40.0),
    Source("broadcast", 0.14, ("zh",), "LicenseRef-broadcaster", 48_000, 3.0, 28.0),
    Source("phone_calls", 0.10, ("en", "zh"), "LicenseRef-consented-calls", 8_000, 2.2, 16.0),
    Source("crawl", 0.08, ("en", "zh", "ru", "ja", "hi", "pt"), None, 44_100, 2.4, 14.0),
    Source("read_prompts", 0.03, ("en", "zh", "ja", "ko", "hi", "pt", "sw"), "CC0-1.0", 48_000, 3.2, 36.0),
    Source("made_voices", 0.01, ("en", "zh"), "CC-BY-4.0", 24_000, 3.4, 60.0, "espeak-ng"),
)
# Each is one row of a planted unit, in this order from its row 100 on; what the audit must find.
DEFECTS = (
    "clip_outside_recording",
    "clip_without_length",
    "speech_longer_than_clip",
    "overlap_longer_than_clip",
    "speech_span_outside_clip",
    "text_without_speech",
    "dnsmos_outside_1_to_5",
    "probability_outside_0_to_1",
    "speech_rate_out_of_range",
    "codes_against_duration",
    "number_not_finite",
)
FIRST_DEFECT = 100


def columns_of(adds: pa.Schema, *names: str) -> pa.Schema:
    """Some columns of a part's schema."""
    return pa.schema([adds.field(name) for name in names])


ADDS = {
    "asr": columns_of(asr_schema.ASR_ADDS, "text", "language", "confidence"),
    "dnsmos": dnsmos.ADDS,
    "signal": columns_of(
        signal.ADDS, "peak_dbfs", "rms_dbfs", "clipped_ratio", "silence_ratio", "bandwidth_hz", "snr_db", "c50_db"
    ),
    "text": columns_of(text_facts.ADDS, "text_language", "language_agrees", "char_rate_hz", "word_rate_hz", "compression_ratio"),
    "style": columns_of(style.ADDS, "pitch_level", "pitch_range", "rate_level", "loudness_level"),
    "prosody": columns_of(prosody.ADDS, "pitch_hz", "pitch_std_semitones", "voiced_ratio", "loudness_lufs", "syllable_rate_hz"),
    "integrity": columns_of(integrity.ADDS, "flatness", "is_garbled", "speed_ratio", "is_narrowband"),
    # The list of codes itself would be 500 bytes a clip.
    "codes": pa.schema([field("num_codes", pa.int32(), "length of codes")]),
}
LEVELS = {
    "pitch_level": ("low", "mid", "high"),
    "pitch_range": ("flat", "moderate", "lively"),
    "rate_level": ("slow", "normal", "fast"),
    "loudness_level": ("quiet", "normal", "loud"),
}


@dataclass(frozen=True)
class Plan:
    """What decides the rows of a corpus."""

    num_clips: int
    seed: int = 0
    unit_clips: int = 2900
    clips_a_recording: int = 60
    plant_every: int = 500  # units
    lacking: float = 0.01  # share of the units, at the end, that lack the layer style

    @property
    def num_units(self) -> int:
        return max(1, -(-self.num_clips // self.unit_clips))

    @property
    def num_speakers(self) -> int:
        return max(10, self.num_clips // CLIPS_A_SPEAKER)

    @property
    def planted_units(self) -> list[int]:
        """Those that hold a row of each defect."""
        return [unit for unit in range(0, self.num_units, self.plant_every) if self.clips_of(unit) > max(planted_at().values())]

    @cached_property
    def units(self) -> list[str]:
        return [f"{number:06d}-{self.seed:08x}" for number in range(self.num_units)]

    def clips_of(self, unit: int) -> int:
        """Clips of a unit: the last has the rest."""
        return min(self.unit_clips, self.num_clips - unit * self.unit_clips)

    def source_of(self, unit: int) -> int:
        """Sources come one after the other, ten times over: they grow as time goes on."""
        edges = np.cumsum([source.share for source in SOURCES])
        return min(len(SOURCES) - 1, int(np.searchsorted(edges, (unit * 10 / self.num_units) % 1.0, side="right")))


def planted_at() -> dict[str, int]:
    """Row of each defect in a planted unit."""
    return {name: FIRST_DEFECT + place for place, name in enumerate(DEFECTS)}
