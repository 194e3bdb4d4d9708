"""Gender, age and pitch level of read speech, speakers held out."""

from __future__ import annotations

import numpy as np

from annotators.paralinguistics_schema import age_label
from benchmarks.quality.figures import Figure, Section, share, statistic
from benchmarks.quality.material import Material
from benchmarks.quality.stored_features import HeldOut, examples_of, held_out, layers_of, over_groups
from pipeline.classifier_fit import Examples, group_folds

LAYERS = ("speaker_embedding", "spectrum", "prosody", "style")
ALL = ("speaker_embedding", "prosody", "spectrum")
FEATURE_SETS = (("prosody.pitch_hz",), ("prosody",), ("spectrum",), ("speaker_embedding",), ALL)
NUM_FOLDS = 5
PRECISION, HIGH_PRECISION = 0.8, 0.9

PROSE = """Read English by 125 speakers of Mandarin background (speechocean762): 52 children of 6 to 12 years, 6 teens, 67 adults of 19 to 37.
Speakers are held out in five folds; everything is chosen on the others, by the code of `stepwell corpus fit-classifier`. Intervals are over
speakers. `prosody.pitch_hz` alone is the rule by pitch: one border for gender. Teens (6 speakers) are in the figures over all and get none of their own; of
the elderly there is nobody. The expected age is the mean of the labels' mean ages under the posterior. `style` is measured against nothing: its
borders are absolute, and the rows say on whom each word falls."""


def measure(material: Material) -> Section:
    items = material.speech("read")
    layers = layers_of(items, LAYERS)
    speakers = np.array([item.facts["speaker"] for item in items])
    years = np.array([float(item.facts["age"]) for item in items])
    genders = np.array([{"F": "female", "M": "male"}[item.facts["gender"]] for item in items])
    ages = np.array([age_label(value) for value in years.tolist()])
    figures: list[Figure] = []
    for names in FEATURE_SETS:
        examples = examples_of(layers, names, genders, speakers)
        figures += _gender(_held_out(examples, PRECISION), examples, ages, " + ".join(names))
    figures += _held_out(examples, HIGH_PRECISION).stated(
        "gender", examples, "speakers", _asked(" + ".join(names), HIGH_PRECISION)
    )
    for names in FEATURE_SETS:
        examples = examples_of(layers, names, ages, speakers, years)
        figures += _age(_held_out(examples, PRECISION), examples, " + ".join(names))
    figures += _held_out(examples, HIGH_PRECISION).stated("age", examples, "speakers", _asked(" + ".join(names), HIGH_PRECISION))
    figures.append(_guessed_age(years, speakers))
    levels = np.array([level or "none" for level in layers["style"]["pitch_level"].to_pylist()])
    figures += _pitch_levels(levels, np.where(ages == "child", "children", np.char.add(genders, " adults")), ages != "teen")
    return Section("Gender and age", PROSE, figures)


def _held_out(examples: Examples, precision: float) -> HeldOut:
    folds = [held for _, held in group_folds(examples, NUM_FOLDS)]
    return held_out(examples, folds, precision, fewest_items=30)


def _asked(names: str, precision: float) -> str:
    return f"{names}; precision asked for {precision:.0%}"


def _gender(found: HeldOut, examples: Examples, ages: np.ndarray, names: str) -> list[Figure]:
    hits = found.hits(examples)
    figures = [
        over_groups(f"gender of {who}", hits[ages == age], examples.groups[ages == age], "speakers", names)
        for who, age in (("adults", "adult"), ("children", "child"))
    ]
    return [*figures, *found.stated("gender", examples, "speakers", _asked(names, PRECISION))]


def _age(found: HeldOut, examples: Examples, names: str) -> list[Figure]:
    """Child or adult, teens left out; and the error of the expected age, over all."""
    is_either = examples.labels != "teen"
    child, adult = (found.labels.index(label) for label in ("child", "adult"))
    said = np.where(found.posterior[:, child] > found.posterior[:, adult], "child", "adult")
    hits = (said == examples.labels)[is_either]
    assert examples.years is not None
    return [
        over_groups("child or adult", hits, examples.groups[is_either], "speakers", names),
        *found.stated("age", examples, "speakers", _asked(names, PRECISION)),
        _age_error("expected age, mean absolute error", np.abs(found.years - examples.years), examples.groups, names),
    ]


def _age_error(name: str, errors: np.ndarray, speakers: np.ndarray, note: str) -> Figure:
    """Mean over clips, with the interval over the speakers."""
    rows = np.array([(errors[speakers == one].sum(), (speakers == one).sum()) for one in sorted(set(speakers.tolist()))])
    return statistic(name, rows, lambda drawn: float(drawn[:, 0].sum() / drawn[:, 1].sum()), "speakers", "years", note)


def _guessed_age(years: np.ndarray, speakers: np.ndarray) -> Figure:
    """What the median of everybody's age gives: what an estimate must beat."""
    return _age_error("expected age, mean absolute error", np.abs(years - np.median(years)), speakers, "the median age for all")


def _pitch_levels(levels: np.ndarray, groups: np.ndarray, chosen: np.ndarray) -> list[Figure]:
    return [
        share(f"style.pitch_level {level} of {group}", levels[chosen & (groups == group)] == level, "clips")
        for group in ("male adults", "female adults", "children")
        for level in ("low", "mid", "high")
    ]
