"""Manifests of a corpus of any size, written as a compacted corpus is, without audio: what the audit and its like are measured on.

    .venv/bin/python -m benchmarks.made_manifests --clips 1000000 --out /tmp/made

Clips are 10 s on average, a unit has some 2,900 of them (8 h). Sources have their languages, licences, rates and quality;
recordings speakers as frequent as Zipf's law has it; layers nulls, abstentions, errors and gated rows; some units lack a
layer. One unit in PLANT_EVERY holds one row of each of DEFECTS, and from DRIFT_FROM on scores drift. Columns have the names,
types and descriptions of the parts that write them; lists of codes and of words, which no audit of this size reads, are
left out. Equal arguments make equal rows, for any number of processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotators import asr_schema, dnsmos, integrity, prosody, signal, style, text_facts
from manifests.compacted import CompactedPart, Compaction, compaction_folder, write_compaction
from manifests.contracts import ModelFact
from manifests.decision_tables import DecisionTable
from manifests.ids import new_attempt_id
from manifests.parts import PartFacts
from manifests.schema import (
    CLIP_SPANS,
    CLIP_SPEAKERS,
    CLIPS,
    INPUTS,
    QUARANTINE,
    RECORDINGS,
    SPEAKER_ALIASES,
    SPEAKERS,
    field,
    layer_schema,
)
from manifests.snapshots import FORMAT_VERSION, INGEST, Snapshot, clips_output, layer_output, publish_snapshot
from manifests.store import Store, json_bytes
from manifests.tables import TableFile

CLIP_SET = "made"
UNIT_CLIPS = 2900
CLIPS_A_RECORDING = 60
PART_UNITS = 2048  # `corpus compact` cuts at 256 MB of the largest table, which is about as many
CLIPS_A_SPEAKER = 100  # on average
PLANT_EVERY = 500  # units
DRIFT_FROM = 0.9  # of the units
DNSMOS_DRIFT, SNR_DRIFT_DB = -0.3, -2.0
LACKING = 0.01  # of the units, at the end, lack the layer style
EARLIER = 0.02  # of the units, at the start, have dnsmos of an earlier model too
CODEC_HZ = 25.0
VOCABULARY, SENTENCES = 2000, 20_000


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

    @property
    def num_units(self) -> int:
        return max(1, -(-self.num_clips // UNIT_CLIPS))

    @property
    def num_speakers(self) -> int:
        return max(10, self.num_clips // CLIPS_A_SPEAKER)

    @property
    def num_planted(self) -> int:
        """Rows of each defect."""
        return -(-self.num_units // PLANT_EVERY)

    @cached_property
    def units(self) -> list[str]:
        return [f"{number:06d}-{self.seed:08x}" for number in range(self.num_units)]

    def clips_of(self, unit: int) -> int:
        """Clips of a unit: the last has the rest."""
        return min(UNIT_CLIPS, self.num_clips - unit * UNIT_CLIPS)

    def source_of(self, unit: int) -> int:
        """Sources come one after the other, ten times over: they grow as time goes on."""
        edges = np.cumsum([source.share for source in SOURCES])
        return min(len(SOURCES) - 1, int(np.searchsorted(edges, (unit * 10 / self.num_units) % 1.0, side="right")))


def nulled(values: np.ndarray, is_null: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Numbers with nulls; floats to the precision of half ones, so that 100 million clips fit on a disk."""
    rounded = values.astype(np.float16).astype(np.float32) if pa.types.is_float32(kind) else values
    return pa.array(rounded, kind, mask=is_null)


def ids_of(random: np.random.Generator, num: int) -> np.ndarray:
    """uint8 ``[num, 16]``."""
    return random.integers(0, 256, (num, 16), np.uint8)


def as_ids(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def table_with(columns: Mapping[str, pa.Array | Sequence[Any]], schema: pa.Schema, num_rows: int) -> pa.Table:
    """A table of the schema; a column that is not given is null."""
    given = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(num_rows, f.type) for f in schema]
    return pa.table(given, schema=schema)


@lru_cache(maxsize=8)
def sentences(language: str) -> pa.Array:
    """SENTENCES texts of three to six words of a vocabulary as frequent as Zipf's law has it."""
    random = np.random.default_rng(sum(language.encode()))
    letters = np.array(
        list("abcdefghijklmnoprstuvwz" if language not in ("zh", "ja", "ko") else "的一是不了人我在有他这中大来上国个到说们")
    )
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(VOCABULARY)]
    picked = np.minimum(VOCABULARY - 1, VOCABULARY ** random.random((SENTENCES, 6))).astype(int)
    return pa.array([" ".join(words[word] for word in row[: 3 + row[0] % 4]) for row in picked])


class Unit:
    """The tables of one unit."""

    def __init__(self, plan: Plan, number: int, speaker_ids: np.ndarray) -> None:
        self._plan, self._speaker_ids = plan, speaker_ids
        self._random = np.random.default_rng((plan.seed, number))
        self._source = SOURCES[plan.source_of(number)]
        self._num = plan.clips_of(number)
        self._drifts = number >= DRIFT_FROM * plan.num_units
        self._is_planted = number % PLANT_EVERY == 0
        self.layers: dict[str, pa.Table] = {}
        self._draw_recordings(number)
        self._draw_clips()
        self._draw_layers()

    def _draw_recordings(self, number: int) -> None:
        random, source = self._random, self._source
        num = max(1, self._num // CLIPS_A_RECORDING)
        self._recording_ids = ids_of(random, num)
        self._of = np.sort(random.integers(0, num, self._num))  # recording of each clip
        offset, total = 100.0, self._plan.num_speakers  # without an offset one person would speak every tenth clip
        drawn = offset * ((total / offset + 1) ** random.random((num, 2)) - 1)
        self._speakers_RV = np.minimum(total - 1, drawn.astype(np.int64))  # two voices a recording
        self._languages = random.integers(0, len(source.languages), num) * (random.random(num) < 0.6)
        self._is_told = random.random(num) < (0.9 if source.licence else 0.4)
        self._quality_R = random.normal(0, 0.3, num)
        self._input_ids = ids_of(random, num)
        self._number = number

    def _draw_clips(self) -> None:
        random, num, rate = self._random, self._num, self._source.rate_hz
        lengths_s = np.clip(random.lognormal(2.15, 0.6, num), 0.5, 30.0)
        lengths = (lengths_s * rate).astype(np.int64)
        steps = lengths + (random.exponential(0.8, num) * rate).astype(np.int64)
        ends = np.cumsum(steps)
        first = np.searchsorted(self._of, np.arange(len(self._recording_ids)))
        before = np.concatenate([[0], ends])[first]
        starts = ends - steps - before[self._of]
        self._samples_R = np.concatenate([np.diff(before), [ends[-1] - before[-1]]])
        speech = (lengths * np.clip(random.beta(12, 2, num), 0, 1)).astype(np.int64)
        speech[random.random(num) < 0.01] = 0
        overlap = (speech * random.beta(1, 12, num) * (random.random(num) < 0.08)).astype(np.int64)
        if self._is_planted:
            self._plant_clips(starts, lengths, speech, overlap)
        self._lengths, self._speech = lengths, speech
        clip_ids = self._recording_ids[self._of].copy()
        clip_ids[:, 12:] = np.arange(num, dtype=">u4").view(np.uint8).reshape(num, 4)
        self._clip_ids = as_ids(clip_ids)
        is_second = random.random(num) < 0.2
        self.speakers = self._speakers_RV[self._of, is_second.astype(int)]
        labels = pa.array(["SPEAKER_00", "SPEAKER_01"]).take(pa.array(is_second.astype(np.int8)))
        self.clips = table_with(
            {
                "clip_id": self._clip_ids,
                "recording_id": as_ids(self._recording_ids[self._of]),
                "channel": np.zeros(num, np.int16),
                "sample_rate_hz": np.full(num, rate, np.int32),
                "start_sample": starts,
                "end_sample": starts + lengths,
                "speaker_label": labels,
                "speech_samples": speech,
                "overlap_samples": overlap,
                "speech_spans": self._spans(speech),
                "overlap_spans": self._spans(overlap, most=1),
            },
            CLIPS,
            num,
        )

    def _plant_clips(self, starts: np.ndarray, lengths: np.ndarray, speech: np.ndarray, overlap: np.ndarray) -> None:
        at = planted_at()
        last = np.searchsorted(self._of, self._of[at["clip_outside_recording"]], side="right") - 1
        starts[at["clip_outside_recording"]] = starts[last] + 100 * self._source.rate_hz
        lengths[at["clip_without_length"]] = -1
        speech[at["clip_without_length"]] = overlap[at["clip_without_length"]] = 0
        speech[at["speech_longer_than_clip"]] = lengths[at["speech_longer_than_clip"]] + 1
        overlap[at["overlap_longer_than_clip"]] = lengths[at["overlap_longer_than_clip"]] + 1
        for name in {*DEFECTS} - {"clip_without_length", "speech_longer_than_clip"}:
            speech[at[name]] = 0 if name == "text_without_speech" else max(1, lengths[at[name]] // 2)

    def _spans(self, total: np.ndarray, most: int = 3) -> pa.Array:
        """Spans of so many samples each clip, the first from 160 on."""
        total = np.clip(total, 0, np.maximum(0, self._lengths))
        counts = np.where(total > 0, 1 + self._random.integers(0, most, len(total)), 0)
        edges = np.concatenate([[0], np.cumsum(counts)])
        of = np.repeat(np.arange(len(total)), counts)
        # Equal parts, with the clip's silence between them.
        part = total[of] // counts[of]
        room = (self._lengths[of] - total[of]) // (counts[of] + 1)
        start = (np.arange(len(of)) - edges[of]) * (part + room) + room
        end = start + part
        if self._is_planted and most > 1:
            end[edges[planted_at()["speech_span_outside_clip"]]] += 100 * self._source.rate_hz
        fields = [CLIP_SPANS.value_type.field(name) for name in ("start_sample", "end_sample")]
        spans = pa.StructArray.from_arrays([pa.array(start), pa.array(end)], fields=fields)
        return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), spans, type=CLIP_SPANS)

    def ingested(self) -> dict[str, pa.Table]:
        """``inputs``, ``recordings`` and ``quarantine``: an input a recording, and one in 50 refused."""
        num, source, random = len(self._recording_ids), self._source, self._random
        name = self._plan.units[self._number]
        languages = np.array(source.languages, object)[self._languages]
        refused = max(1, num // 50)
        licence = (
            None
            if source.licence is None
            else [source.licence if told or i % 3 else None for i, told in enumerate(self._is_told)]
        )
        inputs = {
            "input_id": as_ids(self._input_ids),
            "uri": [f"s3://speech/{source.name}/{name}/{i:04d}.flac" for i in range(num)],
            "num_bytes": self._samples_R,
            "version": ["1"] * num,
            "source": [source.name] * num,
            "outcome": ["stored"] * num,
            "recording_id": as_ids(self._recording_ids),
            "synthesizer": [source.synthesizer] * num,
            "language": np.where(self._is_told, languages, None),
            **({"licence": licence} if licence else {}),
        }
        lost_ids = as_ids(ids_of(random, refused))
        uris = [f"s3://speech/{source.name}/{name}/lost-{i}.mp3" for i in range(refused)]
        lost = {"input_id": lost_ids, "uri": uris, "num_bytes": [1000] * refused, "version": ["1"] * refused}
        refusals = {**lost, "source": [source.name] * refused, "outcome": ["refused"] * refused}
        reasons = {"stage": ["decode"] * refused, "reason": ["not_audio"] * refused, "message": ["no stream of audio"] * refused}
        quarantine = {"input_id": lost_ids, "uri": uris, "outcome": ["refused"] * refused, **reasons}
        recordings = {
            "recording_id": as_ids(self._recording_ids),
            "num_samples": self._samples_R,
            "sample_rate_hz": [source.rate_hz] * num,
            "num_channels": [1] * num,
            "heard_channels": [[0]] * num,
            "source_sample_rate_hz": [source.rate_hz] * num,
            "codec": ["mp3" if source.name in ("podcasts", "crawl") else "flac"] * num,
            "container": ["mp3" if source.name in ("podcasts", "crawl") else "flac"] * num,
            "stored_bits": [16] * num,
            "stored_scale": [1.0] * num,
            "peak": random.random(num).astype(np.float32),
            "rms_dbfs": random.normal(-24, 4, num).astype(np.float32),
            "bandwidth_hz": (source.rate_hz * random.uniform(0.3, 0.5, num)).astype(np.float32),
            "is_truncated": random.random(num) < 0.002,
            "is_interleaved": [False] * num,
        }
        return {
            "inputs": pa.concat_tables([table_with(inputs, INPUTS, num), table_with(refusals, INPUTS, refused)]),
            "recordings": table_with(recordings, RECORDINGS, num),
            "quarantine": table_with(quarantine, QUARANTINE, refused),
        }

    def _draw_layers(self) -> None:
        random, num, source = self._random, self._num, self._source
        heard = self._speech > 0
        lengths_s = np.maximum(0.01, self._lengths / source.rate_hz)
        quality = self._quality_R[self._of]
        drift = float(self._drifts)
        snr = source.snr_db + 8 * quality + random.normal(0, 4, num) + SNR_DRIFT_DB * drift
        ovrl = np.clip(source.dnsmos_ovrl + quality + random.normal(0, 0.25, num) + DNSMOS_DRIFT * drift, 1.05, 4.9)
        language = pa.array(source.languages).take(pa.array(self._languages[self._of]))
        wrong = random.random(num) < 0.03
        texts = sentences(source.languages[0]).take(pa.array((SENTENCES ** random.random(num)).astype(np.int64) - 1))
        rate = np.clip(random.normal(4.2, 0.9, num), 0.5, 9)
        pitch = np.clip(random.normal(165, 45, num), 60, 480)
        draws = {
            "asr": {
                "text": texts,
                "language": pa.array(np.where(wrong, "en", language.to_numpy(zero_copy_only=False)), pa.string()),
                "confidence": np.clip(random.beta(9, 2, num) + 0.05 * quality, 0, 1),
            },
            "dnsmos": {
                "dnsmos_sig": np.clip(ovrl + random.normal(0.3, 0.1, num), 1, 5),
                "dnsmos_bak": np.clip(ovrl + random.normal(0.5, 0.3, num), 1, 5),
                "dnsmos_ovrl": ovrl,
                "dnsmos_p808": np.clip(ovrl + random.normal(0.2, 0.2, num), 1, 5),
            },
            "signal": {
                "peak_dbfs": -random.exponential(4, num),
                "rms_dbfs": random.normal(-24, 4, num),
                "clipped_ratio": np.where(random.random(num) < 0.1, random.beta(1, 200, num), 0),
                "silence_ratio": random.beta(2, 9, num),
                "bandwidth_hz": source.rate_hz * random.uniform(0.25, 0.5, num),
                "snr_db": np.clip(snr, -20, 100),
                "c50_db": np.clip(random.normal(14, 5, num), -5, 25),
            },
            "text": {
                "text_language": language,
                "language_agrees": ~wrong,
                "char_rate_hz": rate * 3.1,
                "word_rate_hz": rate * 0.6,
                "compression_ratio": np.clip(random.normal(1.3, 0.2, num), 0.5, 4),
            },
            "style": {
                name: pa.array(levels).take(pa.array(random.choice(3, num, p=(0.2, 0.6, 0.2)))) for name, levels in LEVELS.items()
            },
            "prosody": {
                "pitch_hz": pitch,
                "pitch_std_semitones": np.clip(random.gamma(6, 0.5, num), 0, 12),
                "voiced_ratio": random.beta(6, 5, num),
                "loudness_lufs": random.normal(-22, 4, num),
                "syllable_rate_hz": rate,
            },
            "integrity": {
                "flatness": random.beta(1.2, 12, num),
                "is_garbled": random.random(num) < 2e-4,
                "speed_ratio": np.clip(random.normal(1, 0.12, num), 0.4, 2),
                "is_narrowband": np.full(num, source.rate_hz > 16_000) & (random.random(num) < 0.05),
            },
            "codes": {"num_codes": np.ceil(lengths_s * CODEC_HZ).astype(np.int32)},
        }
        is_null = {"c50_db": 0.15, "text_language": 0.06, "pitch_hz": 0.04, "word_rate_hz": 0.3, "speed_ratio": 0.05}
        if self._is_planted:
            self._plant_layers(draws)
        for layer, values in draws.items():
            self.layers[layer] = self._layer(layer, values, heard, is_null)

    def _plant_layers(self, draws: dict[str, dict[str, Any]]) -> None:
        at = planted_at()
        draws["dnsmos"]["dnsmos_sig"][at["dnsmos_outside_1_to_5"]] = 5.5
        draws["asr"]["confidence"][at["probability_outside_0_to_1"]] = 1.5
        draws["text"]["char_rate_hz"][at["speech_rate_out_of_range"]] = 200.0
        draws["codes"]["num_codes"][at["codes_against_duration"]] += 50
        draws["signal"]["snr_db"][at["number_not_finite"]] = np.nan

    def _layer(self, layer: str, values: Mapping[str, Any], heard: np.ndarray, is_null: Mapping[str, float]) -> pa.Table:
        """Errors in one row of a thousand; abstentions where nothing is heard; dnsmos gated on short clips."""
        random, num = self._random, self._num
        of = np.zeros(num, np.int8)
        if layer in ("asr", "text", "style", "prosody"):
            of[~heard] = 2
        if layer == "dnsmos":
            of[self._lengths < self._source.rate_hz] = 3
        of[random.random(num) < 1e-3] = 1
        if self._is_planted:
            of[[row for name, row in planted_at().items() if name != "clip_without_length"]] = 0
        gone = of != 0
        status = pa.array(["ok", "error", "abstained", "gated"]).take(pa.array(of))
        error = pa.array(np.where(of == 1, "out_of_memory: the model needed more than it has", None), pa.string())
        made = []
        for f in ADDS[layer]:
            lost = gone | (random.random(num) < is_null[f.name]) if f.name in is_null else gone
            given = values[f.name]
            if isinstance(given, np.ndarray):
                made.append(nulled(given, lost, f.type))
            else:
                made.append(pc.if_else(pa.array(lost), pa.scalar(None, f.type), given))
        return pa.table([self._clip_ids, status, error, *made], schema=layer_schema(ADDS[layer]))

    def earlier_dnsmos(self) -> pa.Table:
        """What an earlier model of DNSMOS said: less of the overall score."""
        table = self.layers["dnsmos"]
        place = table.schema.get_field_index("dnsmos_ovrl")
        lower = pc.add(table["dnsmos_ovrl"], pa.scalar(DNSMOS_DRIFT, pa.float32()))
        return table.set_column(place, table.schema.field(place), lower)

    def decided(self) -> pa.Table:
        """CLIP_SPEAKERS: who speaks; nobody knows of one clip in 40."""
        is_null = self._random.random(self._num) < 0.025
        similarity = nulled(self._random.beta(20, 6, self._num), is_null, pa.float32())
        ids = pc.if_else(pa.array(is_null), pa.scalar(None, pa.binary(16)), as_ids(self._speaker_ids[self.speakers]))
        return pa.table([self._clip_ids, ids, similarity], schema=CLIP_SPEAKERS)

    @property
    def durations_s(self) -> np.ndarray:
        return self._lengths / self._source.rate_hz

    @property
    def speech_s(self) -> np.ndarray:
        return self._speech / self._source.rate_hz


def planted_at() -> dict[str, int]:
    """Row of each defect in a planted unit."""
    return {name: FIRST_DEFECT + place for place, name in enumerate(DEFECTS)}


@dataclass(frozen=True)
class PartTask:
    """The units of one compacted part of every output."""

    uri: str
    plan: Plan
    units: range
    marks: Mapping[str, str]  # output -> fingerprint


class Made(NamedTuple):
    """Compacted parts by output, and what speakers got of them."""

    parts: list[tuple[str, str, CompactedPart]]  # output (or name of a table), fingerprint
    num_clips: np.ndarray
    clip_s: np.ndarray
    speech_s: np.ndarray


@lru_cache(maxsize=1)
def speaker_ids(plan: Plan) -> np.ndarray:
    """uint8 ``[speakers, 16]``."""
    return ids_of(np.random.default_rng((plan.seed, 1 << 40)), plan.num_speakers)


def write_part(task: PartTask) -> Made:
    """Write the parts of some units."""
    plan, ids = task.plan, speaker_ids(task.plan)
    files: dict[tuple[str, str, str], _OpenPart] = {}
    sums = np.zeros((3, plan.num_speakers))
    for number in task.units:
        unit = Unit(plan, number, ids)
        clips = {(clips_output(CLIP_SET), "clips"): unit.clips, ("speaker_id", "clips"): unit.decided()}
        layers = {(layer_output(CLIP_SET, name), "layer"): table for name, table in unit.layers.items()}
        for (output, role), table in {**clips, **layers, **{(INGEST, role): t for role, t in unit.ingested().items()}}.items():
            if number >= plan.num_units * (1 - LACKING) and output == layer_output(CLIP_SET, "style"):
                continue
            files.setdefault((output, task.marks[output], role), _OpenPart()).append(plan.units[number], table)
        if number < plan.num_units * EARLIER:
            output = layer_output(CLIP_SET, "dnsmos")
            files.setdefault((output, EARLIER_MARK, "layer"), _OpenPart()).append(plan.units[number], unit.earlier_dnsmos())
        for row, weights in enumerate((None, unit.durations_s, unit.speech_s)):
            sums[row] += np.bincount(unit.speakers, weights, plan.num_speakers)
    store = Store(task.uri)
    parts = [(output, mark, file.put(store, output, mark, role)) for (output, mark, role), file in files.items()]
    return Made(parts, *sums)


class _OpenPart:
    """A compacted part in the making."""

    def __init__(self) -> None:
        self._file: TableFile | None = None
        self._units: list[str] = []

    def append(self, unit: str, table: pa.Table) -> None:
        self._file = self._file or TableFile(table.schema)
        self._file.append(table)
        self._units.append(unit)

    def put(self, store: Store, output: str, mark: str, role: str) -> CompactedPart:
        assert self._file is not None
        rows, group = self._file.row_group_rows, self._units[0]
        folder = f"tables/{output}/{mark}" if output == "speaker_id" else compaction_folder(output, mark)
        fact = self._file.put(store, f"{folder}/{role}-{group}-{new_attempt_id()}.parquet")
        return CompactedPart(role, group, fact.path, fact.num_bytes, fact.digest, self._units, list(range(len(rows))), rows)


EARLIER_MARK = "d" * 15 + "0"


def marks() -> dict[str, str]:
    """output (or name of a decision table) -> fingerprint."""
    names = [INGEST, clips_output(CLIP_SET), *(layer_output(CLIP_SET, name) for name in ADDS), "speaker_id"]
    return {name: f"{place + 1:x}" * 16 for place, name in enumerate(names)}


def make_corpus(uri: str, num_clips: int, *, seed: int = 0, num_processes: int = 2) -> Plan:
    """Write the corpus at a URI where there is none yet; returns what it was made by."""
    plan, store, current = Plan(num_clips, seed), Store(uri), marks()
    store.create(
        "corpus.json", json_bytes({"format_version": FORMAT_VERSION, "corpus_id": f"made-{seed}", "sample_rate": "native"})
    )
    size = min(PART_UNITS, -(-plan.num_units // num_processes))
    spans = [range(at, min(plan.num_units, at + size)) for at in range(0, plan.num_units, size)]
    tasks = [PartTask(uri, plan, units, current) for units in spans]
    sums = np.zeros((3, plan.num_speakers))
    parts: dict[tuple[str, str], list[CompactedPart]] = {}
    for made in _each(tasks, num_processes):
        for output, mark, part in made.parts:
            parts.setdefault((output, mark), []).append(part)
        sums += np.stack(made[1:])
    table = parts.pop(("speaker_id", current["speaker_id"]))
    head = _write_speakers(store, plan, current, table, sums)
    _write_snapshot(store, plan, current, parts, {"speaker_id": head})
    return plan


def _each(tasks: Sequence[PartTask], num_processes: int) -> Iterator[Made]:
    if num_processes == 1 or len(tasks) == 1:
        yield from map(write_part, tasks)
        return
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write_part, tasks)


def _write_snapshot(
    store: Store,
    plan: Plan,
    current: Mapping[str, str],
    parts: Mapping[tuple[str, str], list[CompactedPart]],
    tables: dict[str, str],
) -> None:
    outputs: dict[str, dict[str, list[str]]] = {}
    compacted: dict[str, dict[str, str]] = {}
    for (output, mark), made in parts.items():
        role = made[0].role
        outputs.setdefault(output, {})[mark] = sorted(unit for part in made if part.role == role for unit in part.units)
        compacted.setdefault(output, {})[mark] = write_compaction(store, Compaction(output, mark, made))
        _, _, name = output.partition(f"layers/{CLIP_SET}/")
        if name:
            model = ModelFact(name, "1" if mark == EARLIER_MARK else "2", "0" * 32, "MIT")
            PartFacts(name, "1", (model,), {clips_output(CLIP_SET): current[clips_output(CLIP_SET)]}).write(store, output, mark)
    known = {output: mark for output, mark in current.items() if output in outputs}
    assert publish_snapshot(store, Snapshot(0, plan.units, outputs, known, CLIP_SET, compacted=compacted, tables=tables))


def _write_speakers(store: Store, plan: Plan, current: Mapping[str, str], parts: list[CompactedPart], sums: np.ndarray) -> str:
    """The decision table of speakers; returns the path of its head."""
    num_clips, clip_s, speech_s = sums
    heard = num_clips > 0
    num = int(heard.sum())
    speakers = {
        "speaker_id": as_ids(speaker_ids(plan)[heard]),
        "num_clips": num_clips[heard].astype(np.int64),
        "num_recordings": np.maximum(1, num_clips[heard].astype(np.int64) // CLIPS_A_RECORDING),
        "clip_s": clip_s[heard],
        "speech_s": speech_s[heard],
        "since_snapshot": np.zeros(num, np.int64),
        "weight": np.minimum(30, clip_s[heard]),
        "self_share": 1 / num_clips[heard],
        "centroid": pa.array([[]] * num, pa.list_(pa.float32())),
    }
    wholes = {}
    for role, table in (("speakers", table_with(speakers, SPEAKERS, num)), ("aliases", SPEAKER_ALIASES.empty_table())):
        file = TableFile(table.schema)
        file.append(table)
        wholes[role] = file.put(store, f"tables/speaker_id/{current['speaker_id']}/{role}-{new_attempt_id()}.parquet")
    reads = {clips_output(CLIP_SET): current[clips_output(CLIP_SET)]}
    ordered = sorted(parts, key=lambda part: part.group)
    head = DecisionTable("speaker_id", current["speaker_id"], 0, reads, {}, wholes=wholes, parts=ordered)
    path = f"{head.folder}/{new_attempt_id()}.json"
    store.write(path, json_bytes(asdict(head)))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--out", required=True, help="folder or URI of the new corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    plan = make_corpus(options.out, options.clips, seed=options.seed, num_processes=options.processes)
    num_bytes = sum(Store(options.out).size(path) for path in Store(options.out).objects(""))
    wall_s = time.monotonic() - began
    print(
        f"{plan.num_clips} clips in {plan.num_units} units, {num_bytes / 1e9:.2f} GB, {wall_s:.0f} s; {plan.num_planted} of each defect"
    )


if __name__ == "__main__":
    main()
