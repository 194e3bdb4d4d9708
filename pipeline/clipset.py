"""Cutting clips: spans of one channel with one speaker, cut at pauses and speaker changes, never longer than a bound.

Speech is what VAD hears; who speaks is what diarization says. Speech that no turn covers goes to the speaker before it.
Nothing is thrown away: what is too short for a clip stays in the spans.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pydantic import Field, PositiveFloat, model_validator

from manifests.recipes import RecipeModel
from manifests.spans import Span, clamp, intersect, merge, near, overlapped

VERSION = "2"


class ClipSetConfig(RecipeModel):
    """One segmentation recipe. ``speech`` and ``turns`` name segmenters; without ``turns`` no speaker is told."""

    name: str = "utterances"
    speech: str = "vad"
    turns: str | None = "diarization"
    max_s: PositiveFloat = 25.0
    # A pause up to so long stays inside an utterance; a longer one cuts.
    max_pause_s: PositiveFloat = 1.0
    # Speech shorter than this makes no clip: no model of the chain says anything about it.
    min_s: PositiveFloat = 0.2
    # Silence kept on each side, never past the middle of the gap to the neighbour.
    pad_s: float = Field(default=0.15, ge=0)

    @model_validator(mode="after")
    def _room_for_speech(self) -> ClipSetConfig:
        if self.max_s - 2 * self.pad_s < self.min_s:
            raise ValueError(f"max_s {self.max_s} leaves no room for min_s {self.min_s} between pads of {self.pad_s}")
        return self


@dataclass(frozen=True)
class Atom:
    """A stretch of speech with one primary speaker."""

    span: Span
    speaker_label: str | None


@dataclass(frozen=True)
class CutClip:
    """A clip before it has an id; samples at the rate of the spans, ``speech`` and ``overlap`` relative to the clip's start."""

    span: Span
    speaker_label: str | None
    speech: list[Span]
    overlap: list[Span]


def cut_clips(
    speech: Sequence[Span], turns: Sequence[tuple[Span, str]], num_samples: int, rate_hz: int, config: ClipSetConfig
) -> list[CutClip]:
    """Clips of one channel in order of time; they do not overlap, and every edge lies in ``[0, num_samples]``."""
    flat = merge(clamp(speech, num_samples))
    overlap = overlapped(turns)
    utterances = [
        part
        for group in _group(_atoms(flat, turns), round(config.max_pause_s * rate_hz))
        for part in _split(group, flat, round(config.max_s * rate_hz) - 2 * round(config.pad_s * rate_hz))
        if part.span.num_samples >= config.min_s * rate_hz
    ]
    padded = _pad([part.span for part in utterances], round(config.pad_s * rate_hz), num_samples)
    return [
        CutClip(span, part.speaker_label, _inside(flat, span), _inside(overlap, span))
        for span, part in zip(padded, utterances, strict=True)
    ]


def _inside(flat: Sequence[Span], clip: Span) -> list[Span]:
    """The parts of a flat list that lie in the clip, relative to its start."""
    start = clip.start_sample
    return [Span(s.start_sample - start, s.end_sample - start) for s in intersect([clip], near(flat, clip))]


def _atoms(flat: Sequence[Span], turns: Sequence[tuple[Span, str]]) -> list[Atom]:
    """Speech cut at turn edges, each part with its primary speaker.

    Where several speak, who spoke before goes on; else the one whose turn lasts longest from there.
    """
    edges = sorted({edge for span, _ in turns for edge in span})
    waiting = deque(sorted(turns))
    heard: list[tuple[Span, str]] = []  # turns that may reach into the present speech
    atoms: list[Atom] = []
    for speech in flat:
        while waiting and waiting[0][0].start_sample < speech.end_sample:
            heard.append(waiting.popleft())
        heard = [turn for turn in heard if turn[0].end_sample > speech.start_sample]
        inner = edges[bisect_right(edges, speech.start_sample) : bisect_left(edges, speech.end_sample)]
        bounds = [speech.start_sample, *inner, speech.end_sample]
        for start, end in pairwise(bounds):
            active = {label: span.end_sample for span, label in heard if span.start_sample < end and span.end_sample > start}
            before = atoms[-1].speaker_label if atoms else None
            label = before if before in active or not active else max(active, key=lambda name: (active[name], name))
            atoms.append(Atom(Span(start, end), label))
    # Speech before the first turn belongs to whoever speaks first.
    first = next((atom.speaker_label for atom in atoms if atom.speaker_label is not None), None)
    return [replace(atom, speaker_label=atom.speaker_label or first) for atom in atoms]


def _group(atoms: Sequence[Atom], max_pause: int) -> list[Atom]:
    """Neighbouring atoms of one speaker, joined over pauses up to ``max_pause`` samples."""
    groups: list[Atom] = []
    for atom in atoms:
        last = groups[-1] if groups else None
        if (
            last is not None
            and last.speaker_label == atom.speaker_label
            and atom.span.start_sample - last.span.end_sample <= max_pause
        ):
            groups[-1] = Atom(Span(last.span.start_sample, atom.span.end_sample), atom.speaker_label)
        else:
            groups.append(atom)
    return groups


def _split(group: Atom, flat: Sequence[Span], max_samples: int) -> list[Atom]:
    """The group in parts of at most ``max_samples``: each time cut at the longest pause of the second half, else hard."""
    parts: list[Atom] = []
    rest = group.span
    while rest.num_samples > max_samples:
        window = Span(rest.start_sample + max_samples // 2, rest.start_sample + max_samples)
        spoken = intersect([rest], near(flat, rest))
        pauses = [Span(a.end_sample, b.start_sample) for a, b in pairwise(spoken)]
        inside = intersect(pauses, [window])
        cut = max(inside, key=lambda pause: pause.num_samples) if inside else Span(window.end_sample, window.end_sample)
        parts.append(Atom(Span(rest.start_sample, cut.start_sample), group.speaker_label))
        rest = Span(cut.end_sample, rest.end_sample)
    return [*parts, Atom(rest, group.speaker_label)]


def _pad(spans: Sequence[Span], pad: int, num_samples: int) -> list[Span]:
    """Each span widened by ``pad``, at most to the middle of the gap to its neighbour."""
    starts = [max(0, span.start_sample - pad) for span in spans]
    ends = [min(num_samples, span.end_sample + pad) for span in spans]
    for i in range(1, len(spans)):
        if ends[i - 1] > starts[i]:
            middle = (spans[i - 1].end_sample + spans[i].start_sample) // 2
            ends[i - 1], starts[i] = min(ends[i - 1], middle), max(starts[i], middle)
    return [Span(start, end) for start, end in zip(starts, ends, strict=True)]
