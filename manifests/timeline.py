"""Who spoke when, in a recording that has reference turns: lanes of the reference, the diarization and the VAD."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.scoring import DiarizationScore, Segment, Turn, corpus_turns, read_rttm, read_stm, score_diarization
from manifests.snapshots import spans_output

SHOWN_S = 180.0  # a page is for looking; longer recordings are shown up to here
GRID_S = 0.01
ENVELOPE_POINTS_A_S = 20
ERRORS = ("missed", "false alarm", "confusion")


@dataclass(frozen=True)
class Bar:
    """A stretch on a lane. ``tone`` numbers the reference speaker it belongs to; None belongs to nobody."""

    start_s: float
    end_s: float
    tone: int | None
    hint: str


@dataclass(frozen=True)
class Lane:
    """One row of the drawing."""

    group: str  # reference | diarization | VAD | errors
    label: str
    bars: list[Bar]


@dataclass(frozen=True)
class Timeline:
    """What is drawn of one recording: the first ``shown_s`` seconds of ``duration_s``."""

    recording: str
    duration_s: float
    shown_s: float
    envelope: list[float]  # peak of each 1 / ENVELOPE_POINTS_A_S s, 0 to 1, relative to the loudest
    lanes: list[Lane]
    score: DiarizationScore | None = field(default=None)


def timelines(corpus: Corpus, vad: str, segmenter: str, limit: int = 2) -> list[Timeline]:
    """The first ``limit`` recordings whose inputs name readable reference turns."""
    recordings = {row["recording_id"]: row for row in corpus.recordings().to_pylist()}
    heard = {
        name: corpus_turns(corpus, name) if spans_output(name) in corpus.snapshot.current else {} for name in (vad, segmenter)
    }
    found: dict[bytes, Timeline] = {}
    for row in corpus.inputs().to_pylist():
        recording = row["recording_id"]
        if recording is None or recording in found or not row["reference_rttm_uri"] or len(found) == limit:
            continue
        try:
            said = read_rttm(row["reference_rttm_uri"])
            segments = read_stm(row["reference_stm_uri"]) if row["reference_stm_uri"] else []
        except (OSError, RequestError):
            continue  # score_corpus notes it
        name, facts = posixpath.basename(row["uri"]), recordings[recording]
        duration_s = facts["num_samples"] / facts["sample_rate_hz"]
        turns = heard[segmenter].get(recording, [])
        score = score_diarization(name, said, turns, duration_s) if spans_output(segmenter) in corpus.snapshot.current else None
        lanes = [*_reference_lanes(said, segments), *_heard_lanes(said, turns, heard[vad].get(recording, []), score)]
        shown_s = min(duration_s, SHOWN_S)
        found[recording] = Timeline(name, duration_s, shown_s, _envelope(corpus, facts, shown_s), lanes, score)
    return list(found.values())


def _reference_lanes(said: Sequence[Turn], segments: Sequence[Segment]) -> list[Lane]:
    speakers = list(dict.fromkeys(turn.label for turn in said))
    lanes = []
    for tone, speaker in enumerate(speakers):
        bars = [
            Bar(t.start_s, t.end_s, tone, f"{speaker} {t.start_s:.2f}–{t.end_s:.2f} s {_words(t, segments)}".rstrip())
            for t in said
            if t.label == speaker
        ]
        lanes.append(Lane("reference", speaker, bars))
    return lanes


def _words(turn: Turn, segments: Sequence[Segment]) -> str:
    """Words of the segments that lie for the greater part within the turn."""
    inside = [
        s.words
        for s in segments
        if min(s.end_s, turn.end_s) - max(s.start_s, turn.start_s) > 0.5 * max(s.end_s - s.start_s, 1e-6)
    ]
    return "“" + " ".join(inside) + "”" if inside else ""


def _heard_lanes(
    said: Sequence[Turn], turns: Sequence[Turn], speech: Sequence[Turn], score: DiarizationScore | None
) -> list[Lane]:
    """Diarization in the colours of the speakers that the score matched, then VAD, then where the two differ."""
    tones = {speaker: tone for tone, speaker in enumerate(dict.fromkeys(turn.label for turn in said))}
    match: Mapping[str, str] = score.labels if score else {}
    # Matched labels first and in the reference's order, so that a lane lies as its counterpart does.
    labels = sorted({turn.label for turn in turns}, key=lambda label: (tones.get(match.get(label, ""), len(tones)), label))
    lanes = []
    for label in labels:
        tone = tones.get(match.get(label, ""))
        bars = [Bar(t.start_s, t.end_s, tone, f"{label} {t.start_s:.2f}–{t.end_s:.2f} s") for t in turns if t.label == label]
        lanes.append(Lane("diarization", label, bars))
    lanes.append(Lane("VAD", "speech", [Bar(t.start_s, t.end_s, None, f"{t.start_s:.2f}–{t.end_s:.2f} s") for t in speech]))
    if score is not None:
        lanes.append(Lane("errors", "differs", _differences(said, turns, match)))
    return lanes


def _differences(said: Sequence[Turn], turns: Sequence[Turn], match: Mapping[str, str]) -> list[Bar]:
    """Where the diarization differs from the reference, on a grid of GRID_S; ``tone`` indexes ERRORS."""
    num_frames = round(max((t.end_s for t in (*said, *turns)), default=0.0) / GRID_S) + 1
    speakers = sorted({t.label for t in said} | {match.get(t.label, f"?{t.label}") for t in turns})
    reference, hypothesis = (np.zeros((len(speakers), num_frames), dtype=bool) for _ in range(2))
    for grid, rows in ((reference, said), (hypothesis, [t._replace(label=match.get(t.label, f"?{t.label}")) for t in turns])):
        for turn in rows:
            grid[speakers.index(turn.label), round(turn.start_s / GRID_S) : round(turn.end_s / GRID_S)] = True
    num_said, num_found, num_right = reference.sum(0), hypothesis.sum(0), (reference & hypothesis).sum(0)
    kinds = (num_said > num_found, num_found > num_said, np.minimum(num_said, num_found) > num_right)
    bars = []
    for tone, wrong in enumerate(kinds):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], wrong.astype(np.int8), [0]))))
        for start, end in zip((edges[0::2] * GRID_S).tolist(), (edges[1::2] * GRID_S).tolist(), strict=True):
            bars.append(Bar(start, end, tone, f"{ERRORS[tone]} {start:.2f}–{end:.2f} s"))
    return sorted(bars, key=lambda bar: bar.start_s)


def _envelope(corpus: Corpus, facts: Mapping[str, Any], shown_s: float) -> list[float]:
    """Peaks of the stored audio, the first channel that the models hear."""
    if not facts["heard_channels"]:
        return []
    rate = facts["sample_rate_hz"]
    num_samples = min(facts["num_samples"], round(shown_s * rate))
    audio = np.abs(corpus.audio().read(facts["recording_id"], facts["heard_channels"][0], rate, 0, num_samples))
    width = rate // ENVELOPE_POINTS_A_S
    padded = np.pad(audio, (0, -len(audio) % width)).reshape(-1, width).max(axis=1)
    return [round(float(peak), 4) for peak in padded / max(float(padded.max(initial=0.0)), 1e-9)]
