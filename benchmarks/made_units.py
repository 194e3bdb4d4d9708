"""The tables of one unit of made manifests, drawn from its number alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.made_plan import (
    ADDS,
    CODEC_HZ,
    DEFECTS,
    DNSMOS_DRIFT,
    DRIFT_FROM,
    LEVELS,
    SNR_DRIFT_DB,
    SOURCES,
    Plan,
    planted_at,
)
from manifests.schema import CLIP_SPANS, CLIP_SPEAKERS, CLIPS, INPUTS, QUARANTINE, RECORDINGS, layer_schema

VOCABULARY, SENTENCES = 2000, 20_000


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
        self._is_planted = number in plan.planted_units
        self.layers: dict[str, pa.Table] = {}
        self._draw_recordings(number)
        self._draw_clips()
        self._draw_layers()

    def _draw_recordings(self, number: int) -> None:
        random, source = self._random, self._source
        num = max(1, self._num // self._plan.clips_a_recording)
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
