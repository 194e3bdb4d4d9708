"""Rows that cannot be: each rule has a name and finds its offenders in a slice; how many there are, and the first of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.recipe import AuditRecipe
from manifests.audit.slices import DURATION, SliceColumns
from manifests.contracts import MODEL_RATE_HZ

LEFT_OUT_FOR = "there is no "  # and then columns
CLIP_ID, UNIT = "clip.clip_id", "clip.unit"
START, END, RATE = "clip.start_sample", "clip.end_sample", "clip.sample_rate_hz"
SPEECH, OVERLAP = "clip.speech_samples", "clip.overlap_samples"
WORD_TOLERANCE = MODEL_RATE_HZ // 50  # samples: recognisers tell times in steps of 20 ms
Mask = np.ndarray  # bool [rows]


@dataclass(frozen=True)
class Rule:
    """``find`` says which rows of a slice break it. ``shown`` are the columns that an offender is told with."""

    name: str
    title: str
    columns: tuple[str, ...]
    find: Callable[[SliceColumns, tuple[str, ...]], Mask]
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outside:
    """Finds values of any of the columns outside ``[low, high]``."""

    low: float
    high: float

    def __call__(self, slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
        masks = [(slice_.floats(name) < self.low) | (slice_.floats(name) > self.high) for name in columns]
        return np.logical_or.reduce(masks)


@dataclass(frozen=True)
class CodesAgainstDuration:
    """Finds numbers of codes that are further from duration times frame rate than the tolerance."""

    frame_hz: float
    tolerance: float

    def __call__(self, slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
        return np.abs(slice_.floats(columns[0]) - slice_.seconds * self.frame_hz) > self.tolerance


@dataclass(frozen=True)
class TokensAgainstDuration:
    """Finds more tokens of text than so many a second."""

    most_hz: float

    def __call__(self, slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
        return (slice_.floats(columns[0]) > slice_.seconds * self.most_hz) & (slice_.seconds > 0)


def rules_for(recipe: AuditRecipe, schema: pa.Schema) -> tuple[list[Rule], list[dict[str, str]]]:
    """(rules whose columns are there, what is left out and why)."""
    found, left_out = [], []
    layers = sorted({name.partition(".")[0] for name in schema.names if name.endswith(".status")})
    asked = [*_clip_rules(), *_layer_rules(schema, layers)]
    frames = CodesAgainstDuration(recipe.codec_frame_hz, recipe.codes_tolerance)
    title = f"codes do not match the duration at {recipe.codec_frame_hz:g} a second"
    asked.append(Rule("codes_against_duration", title, (recipe.codes, DURATION), frames, (recipe.codes, DURATION)))
    tokens = (recipe.text_tokens, DURATION)
    title = f"more than {recipe.most_text_tokens_hz:g} tokens of text a second"
    asked.append(Rule("text_tokens_against_duration", title, tokens, TokensAgainstDuration(recipe.most_text_tokens_hz), tokens))
    for rule in asked:
        if missing := [name for name in rule.columns if name not in schema.names]:
            left_out.append({"what": "rule", "name": rule.name, "why": f"{LEFT_OUT_FOR}{', '.join(missing)}"})
        else:
            found.append(rule)
    for limit in recipe.limits:
        there = tuple(name for name in limit.columns if name in schema.names)
        low, high = -np.inf if limit.min is None else limit.min, np.inf if limit.max is None else limit.max
        if there:
            found.append(Rule(limit.rule, f"values outside {low:g} to {high:g}", there, Outside(low, high), there))
        else:
            left_out.append({"what": "rule", "name": limit.rule, "why": f"{LEFT_OUT_FOR}{', '.join(limit.columns)}"})
    return found, left_out


def _clip_rules() -> list[Rule]:
    place = (START, END)
    return [
        Rule("licence_missing", "nobody says under which licence the recording is", ("input.licence",), _no_licence),
        Rule("clip_without_length", "the clip ends before it starts, or where it does", place, _without_length, place),
        Rule(
            "clip_outside_recording",
            "the clip starts before its recording or ends after it",
            (START, END, "recording.num_samples"),
            _outside_recording,
            (START, END, "recording.num_samples"),
        ),
        Rule("speech_longer_than_clip", "more speech than clip, or less than none", (*place, SPEECH), _longer, (*place, SPEECH)),
        Rule(
            "overlap_longer_than_clip", "more overlap than clip, or less than none", (*place, OVERLAP), _longer, (*place, OVERLAP)
        ),
        Rule(
            "speech_span_outside_clip",
            "VAD hears speech outside of the clip",
            (*place, "clip.speech_spans"),
            _spans_outside,
            place,
        ),
        Rule(
            "overlap_span_outside_clip",
            "speakers overlap outside of the clip",
            (*place, "clip.overlap_spans"),
            _spans_outside,
            place,
        ),
    ]


def _layer_rules(schema: pa.Schema, layers: Sequence[str]) -> list[Rule]:
    texts = [layer for layer in layers if {f"{layer}.text", f"{layer}.language"} <= {*schema.names}]
    rules = [
        Rule(
            "text_without_speech",
            f"{text} says words where VAD hears none",
            (f"{text}.text", SPEECH),
            _text_alone,
            (f"{text}.text",),
        )
        for text in texts
    ]
    rules += [
        Rule(
            "words_outside_clip", f"words of {text} lie outside of the clip", (f"{text}.words", START, END, RATE), _words_outside
        )
        for text in texts
        if f"{text}.words" in schema.names
    ]
    for layer in layers:
        numbers = [f.name for f in schema if f.name.startswith(f"{layer}.") and pa.types.is_floating(f.type)]
        if numbers:
            rules.append(
                Rule(
                    "number_not_finite", f"{layer} holds a NaN or an infinite number", tuple(numbers), _not_finite, tuple(numbers)
                )
            )
    return rules


def _no_licence(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    return slice_.table[columns[0]].is_null().to_numpy()


def _without_length(slice_: SliceColumns, _: tuple[str, ...]) -> Mask:
    return slice_.ints(END) <= slice_.ints(START)


def _outside_recording(slice_: SliceColumns, _: tuple[str, ...]) -> Mask:
    # A recording that is not there is null, and NaN compares as false.
    return (slice_.ints(START) < 0) | (slice_.ints(END) > slice_.floats("recording.num_samples"))


def _longer(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    samples = slice_.ints(columns[2])
    return (samples > np.maximum(0, slice_.ints(END) - slice_.ints(START))) | (samples < 0)


def _spans_outside(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    lengths = np.maximum(0, slice_.ints(END) - slice_.ints(START))
    return _reaches_outside(slice_.table[columns[2]], lengths, 0)


def _words_outside(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    rates = np.maximum(1, slice_.ints(RATE)) / MODEL_RATE_HZ
    lengths = (slice_.ints(END) - slice_.ints(START)) / rates
    return _reaches_outside(slice_.table[columns[0]], lengths, WORD_TOLERANCE)


def _reaches_outside(spans: pa.ChunkedArray, lengths: np.ndarray, tolerance: int) -> Mask:
    """Whether any of a row's spans starts before 0, ends after the row's length, or ends before it starts."""
    whole = spans.combine_chunks()
    flat, of = whole.flatten(), pc.list_parent_indices(whole).to_numpy()
    starts, ends = (pc.struct_field(flat, name).to_numpy(zero_copy_only=False) for name in ("start_sample", "end_sample"))
    is_bad = (starts < -tolerance) | (ends > lengths[of] + tolerance) | (ends < starts)
    found = np.zeros(len(lengths), bool)
    found[of[is_bad]] = True
    return found


def _text_alone(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    text, speech = columns
    is_silent = slice_.ints(speech) <= 0
    found = np.zeros(slice_.num_rows, bool)
    if is_silent.any():
        heard = slice_.table[text].filter(pa.array(is_silent))
        has_text = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(heard)), 0), False)
        found[np.flatnonzero(is_silent)] = has_text.to_numpy()
    return found


def _not_finite(slice_: SliceColumns, columns: tuple[str, ...]) -> Mask:
    found = np.zeros(slice_.num_rows, bool)
    for name in columns:
        column = slice_.table[name]
        values = slice_.floats(name)
        num_odd = slice_.num_rows - int(np.isfinite(values).sum())
        if num_odd > column.null_count:
            found |= ~np.isfinite(values) & pc.is_valid(column).to_numpy()
    return found


@dataclass
class Offenders:
    """Tally of one rule: rows looked at, offenders, their seconds, and the first ``most`` of them."""

    rule: Rule
    most: int
    num_checked: int = 0
    num_clips: int = 0
    clip_s: float = 0.0
    first: list[dict[str, Any]] = field(default_factory=list)

    @property
    def columns(self) -> Sequence[str]:
        return [CLIP_ID, UNIT, *self.rule.columns]

    def add(self, slice_: SliceColumns) -> None:
        mask = self.rule.find(slice_, self.rule.columns)
        self.num_checked += slice_.num_rows
        num = int(np.count_nonzero(mask))
        if num:
            self.num_clips += num
            self.clip_s += float(slice_.seconds[mask].sum())
            self.first += rows_at(slice_, np.flatnonzero(mask)[: self.most - len(self.first)], self.rule.shown)

    def merge(self, other: Self) -> None:
        self.num_checked += other.num_checked
        self.num_clips += other.num_clips
        self.clip_s += other.clip_s
        self.first = (self.first + other.first)[: self.most]


def rows_at(slice_: SliceColumns, places: np.ndarray, shown: Sequence[str]) -> list[dict[str, Any]]:
    """``clip_id`` (hex), ``unit`` and ``values`` of some rows of a slice."""
    some = slice_.table.select(list(dict.fromkeys([CLIP_ID, UNIT, *shown]))).take(pa.array(places))
    return [
        {"clip_id": (row[CLIP_ID] or b"").hex(), "unit": row[UNIT], "values": {name: _plain(row[name]) for name in shown}}
        for row in some.to_pylist()
    ]


def _plain(value: Any) -> Any:
    """JSON knows no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
