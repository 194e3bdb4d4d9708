"""Emotion by classifiers that are fitted on stored layers, one actor held out at a time."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.figures import FEWEST_ITEMS, Figure, Section, statistic
from benchmarks.quality.material import Material
from benchmarks.quality.stored_features import HeldOut, examples_of, held_out, layers_of, over_groups, voted
from pipeline.classifier_fit import Examples

LAYERS = ("speaker_embedding", "spectrum", "prosody")
FEATURE_SETS = (
    ("prosody",),
    ("spectrum",),
    ("speaker_embedding",),
    ("prosody", "spectrum"),
    ("speaker_embedding", "prosody", "spectrum"),
)
PRECISION, OTHER_PRECISIONS = 0.7, (0.6, 0.8)
FEWEST_FITTED = 15  # of a label: neutral has 24 items here, 22 with an actor held out

PROSE = """Acted English speech (RAVDESS): 12 actors, 360 files, two sentences, eight emotions, labels as the actor was told. Each actor is held
out once; strength, temperature and the confidence below which nothing is said are chosen on the other eleven, by the code of
`stepwell corpus fit-classifier`. Chance is 12.5 % of average recall. The set's licence (CC-BY-NC-SA) is for internal measurement: no classifier fitted on
it ships, and the project ships none. A Hugging Face emotion model (`kind: audio_classifier`) is not measured: no weights of one come with
the dependencies. Acted emotion is easier than real emotion, and two sentences by twelve people say little of other speech."""


def measure(material: Material) -> Section:
    items = material.speech("emotion")
    layers = layers_of(items, LAYERS)
    labels = np.array([item.facts["emotion"] for item in items])
    actors = np.array([item.facts["speaker"] for item in items])
    folds = [np.flatnonzero(actors == actor) for actor in sorted(set(actors.tolist()))]
    figures: list[Figure] = []
    voters: list[HeldOut] = []
    for names in FEATURE_SETS:
        note, examples = " + ".join(names), examples_of(layers, names, labels, actors)
        found = held_out(examples, folds, PRECISION, FEWEST_FITTED)
        figures += _whole(found, examples, note)
        voters += [found] if len(names) == 1 else []
        figures += found.stated("emotion", examples, "actors", f"{note}; precision asked for {PRECISION:.0%}")
    figures += _whole(voted(voters), examples, f"vote of {len(voters)} classifiers, each of one layer")
    # The last set has every layer.
    figures += _by_label(found, examples, note)
    for precision in OTHER_PRECISIONS:
        found = held_out(examples, folds, precision, FEWEST_FITTED)
        figures += found.stated("emotion", examples, "actors", f"{note}; precision asked for {precision:.0%}")
    return Section("Emotion", PROSE, figures)


def _whole(found: HeldOut, examples: Examples, names: str) -> list[Figure]:
    """Average recall and accuracy, with intervals over the actors."""
    actors = sorted(set(examples.groups.tolist()))
    is_label_NK = examples.labels[:, None] == np.array(found.labels)
    right_NK = is_label_NK & found.hits(examples)[:, None]
    counts = np.array([[m[examples.groups == actor].sum(axis=0) for m in (right_NK, is_label_NK)] for actor in actors])

    def average_recall(rows: np.ndarray) -> float:
        right_K, number_K = rows.sum(axis=0)
        return float(np.mean(right_K / number_K))

    def accuracy(rows: np.ndarray) -> float:
        return float(rows[:, 0].sum() / rows[:, 1].sum())

    note = f"{names}; {len(examples)} clips"
    return [
        statistic("emotion, average recall", counts, average_recall, "actors", note=note),
        statistic("emotion, accuracy", counts, accuracy, "actors", note=note),
    ]


def _by_label(found: HeldOut, examples: Examples, note: str) -> list[Figure]:
    """Recall of each label that has items enough for a claim."""
    hits, figures = found.hits(examples), []
    for label in found.labels:
        of_label = examples.labels == label
        if of_label.sum() >= FEWEST_ITEMS:
            figures.append(
                over_groups(
                    f"emotion, recall of {label}",
                    hits[of_label],
                    examples.groups[of_label],
                    "actors",
                    f"{note}; {of_label.sum()} clips",
                )
            )
    return figures
