"""One person found again across recordings: the encoder on pairs, and linking at a threshold fitted on other people.

Every file is a recording, built with the default VAD and speaker embedding; voices and linking are those of
``corpus link-speakers``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.linking_scores import ITEMS, LINKED, PRECISION, RECALL, RIGHT, TRUE, by_speaker, item_scores, pair_scores
from benchmarks.quality.figures import Figure, Section, ratio, share, statistic
from benchmarks.quality.material import Material
from manifests.corpus import Corpus
from manifests.recipes import decode_recipe
from pipeline.build import build
from pipeline.link_speakers import THRESHOLD
from pipeline.recipe import BuildRecipe
from pipeline.speaker_linking import TYPICAL, VoiceMeans, link
from pipeline.voices import COLUMNS, EMBEDDING, Embeddings, find_voices

NUM_FOLDS = 5
THRESHOLDS = np.round(np.arange(0.60, TYPICAL, 0.01), 2)
BINS = np.linspace(0.0, 1.0, 1001)
RECIPE = """
name: speakers
units: {max_inputs: 200}
segmenters: {vad: {kind: silero}}
clip_set: {turns: null}
annotators: {speaker_embedding: {kind: speaker_embedding}}
"""


@dataclass(frozen=True)
class Voices:
    """The voices of one part of the material. Shape legend: N voices, D width."""

    sounds: VoiceMeans  # [N]
    speakers: np.ndarray  # int64 [N], whose each is
    num_recordings: int
    num_heard: int  # recordings with a voice

    def of(self, speakers: np.ndarray) -> Voices:
        """Those of some speakers."""
        rows = np.isin(self.speakers, speakers)
        return Voices(self.sounds.take(rows), self.speakers[rows], 0, 0)

    def linked(self, threshold: float) -> np.ndarray:
        """``benchmarks.linking_scores.by_speaker``."""
        return by_speaker(self.speakers, self.persons(threshold))

    def persons(self, threshold: float) -> np.ndarray:
        return link(self.sounds.take(np.arange(len(self.sounds))), threshold)


def measure(material: Material) -> Section:
    figures = []
    for part, num_folds in (("read", NUM_FOLDS), ("emotion", 3), ("digits", 0)):
        voices = part_voices(material, part)
        heard = np.arange(voices.num_recordings) < voices.num_heard
        figures.append(share(f"{part}: recordings with a voice", heard, "recordings", "the embedding needs 1 s of speech"))
        if num_folds and len(voices.sounds):
            figures += _encoder(part, voices)
            figures += _linking(part, voices, num_folds)
    prose = (
        "`read` is 125 people with nine sentences of some 2 s of speech each, many of them children, `emotion` twelve actors in eight "
        "emotions, all at one microphone a set; `digits` are words of half a second, on which the embedding abstains. The "
        "threshold of linking is fitted for the best F1 over pairs on other speakers than those that are scored; intervals are "
        "over speakers, and twelve actors are too few for a claim: they show what acting does to a voice. Pairs punish one wrong link of two large groups by all pairs between them, B-cubed counts recordings."
    )
    return Section("Speakers across recordings", prose, figures)


def part_voices(material: Material, part: str) -> Voices:
    """Build the part as a corpus and take its voices."""
    speaker_of = {os.path.realpath(item.path): str(item.facts["speaker"]) for item in material.speech(part)}
    names = sorted(set(speaker_of.values()))
    sounds, speakers, num_recordings, heard = [], [], 0, set[bytes]()
    with tempfile.TemporaryDirectory() as folder:
        build([os.path.join(material.folder, "speech", part)], f"{folder}/corpus", decode_recipe(BuildRecipe, RECIPE, "speakers"))
        for view in Corpus.open(f"{folder}/corpus").views():
            inputs = view.inputs().to_pylist()
            number = {row["recording_id"]: names.index(speaker_of[os.path.realpath(row["uri"])]) for row in inputs}
            clips = view.clips(COLUMNS)
            found = find_voices(clips, Embeddings.of(view.layer("speaker_embedding", EMBEDDING)), THRESHOLD)
            of_voice = dict(zip(found.of_clips.tolist(), clips["recording_id"].to_pylist(), strict=True))
            speakers += [number[of_voice[voice]] for voice in range(len(found.ids))]
            sounds.append(found.sounds)
            num_recordings += len(number)
            heard |= {recording for voice, recording in of_voice.items() if voice >= 0}
    return Voices(VoiceMeans.concatenated(sounds), np.array(speakers, np.int64), num_recordings, len(heard))


def _encoder(part: str, voices: Voices) -> list[Figure]:
    """Equal error rate over all pairs of recordings, and where same and different speakers lie."""
    cosines = _cosines(voices.sounds.means)
    num = int(voices.speakers.max()) + 1
    same, other = np.zeros((num, len(BINS) - 1)), np.zeros((num, num, len(BINS) - 1))
    for one in range(num):
        for two in range(one, num):
            block = cosines[np.ix_(voices.speakers == one, voices.speakers == two)]
            if one == two:
                same[one] = np.histogram(block[np.triu_indices(len(block), 1)], BINS)[0]
            else:
                other[one, two] = other[two, one] = np.histogram(block, BINS)[0]

    def error_rate(drawn: np.ndarray) -> float:
        times = np.bincount(drawn, minlength=num).astype(float)
        missed = np.cumsum(times @ same)
        alarms = np.cumsum((times @ np.tensordot(times, other, axes=1))[::-1])[::-1]
        return _equal_error_rate(missed / missed[-1], alarms / alarms[0])

    pairs = {"same": same.sum(axis=0), "different": other.sum(axis=(0, 1))}
    spread = ", ".join(
        f"{name} {_quantile(counts, 0.05):.2f} to {_quantile(counts, 0.95):.2f}, mean {_mean(counts):.2f}"
        for name, counts in pairs.items()
    )
    return [
        statistic(f"{part}: equal error rate of pairs", np.arange(num), error_rate, "speakers", note=f"cosine, 90 % of: {spread}")
    ]


def _cosines(vectors: np.ndarray) -> np.ndarray:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T


def _equal_error_rate(missed: np.ndarray, alarms: np.ndarray) -> float:
    """Where the share of same pairs below a threshold is that of different pairs at or above it."""
    at = int(np.argmax(missed >= np.append(alarms[1:], 0.0)))
    return float((missed[at] + np.append(alarms[1:], 0.0)[at]) / 2)


def _mean(counts: np.ndarray) -> float:
    return float((counts * (BINS[:-1] + BINS[1:]) / 2).sum() / counts.sum())


def _quantile(counts: np.ndarray, share_below: float) -> float:
    return float(BINS[1:][np.searchsorted(np.cumsum(counts), share_below * counts.sum())])


def _linking(part: str, voices: Voices, num_folds: int) -> list[Figure]:
    """Scores on speakers whom the threshold was not fitted on, a fold linked by itself; and all at the default."""
    speakers = np.random.default_rng(0).permutation(np.unique(voices.speakers))
    rows, num_ids, fitted = [], [], []
    for fold in np.array_split(speakers, num_folds):
        others = voices.of(np.setdiff1d(speakers, fold))
        best = max(THRESHOLDS, key=lambda threshold: pair_scores(others.linked(threshold))[2])
        held = voices.of(fold)
        rows.append(held.linked(best))
        num_ids += [len(np.unique(held.persons(best)[held.speakers == speaker])) for speaker in fold]
        fitted.append(f"{best:.2f}")
    how = f"{num_folds} folds of speakers, thresholds {', '.join(fitted)}"
    found = _scores(part, np.concatenate(rows), how)
    found.append(share(f"{part}: speakers with one id in all their recordings", np.array(num_ids) == 1, "speakers", how))
    return found + _scores(f"{part}, all at once", voices.linked(THRESHOLD), f"the default threshold, {THRESHOLD}")


def _scores(part: str, rows: np.ndarray, how: str) -> list[Figure]:
    scored: tuple[tuple[str, int, int, int, Callable[[np.ndarray], tuple[float, float, float]]], ...] = (
        ("pairs", RIGHT, LINKED, TRUE, pair_scores),
        ("B-cubed", PRECISION, RECALL, ITEMS, item_scores),
    )
    figures = []
    for name, one, two, three, scores in scored:
        precision, recall = ((one, two), (one, three)) if name == "pairs" else ((one, three), (two, three))
        figures.append(ratio(f"{part}: precision, {name}", rows[:, precision[0]], rows[:, precision[1]], "speakers", how))
        figures.append(ratio(f"{part}: recall, {name}", rows[:, recall[0]], rows[:, recall[1]], "speakers", how))
        figures.append(statistic(f"{part}: F1, {name}", rows, lambda drawn, of=scores: of(drawn)[2], "speakers", note=how))
    return figures
