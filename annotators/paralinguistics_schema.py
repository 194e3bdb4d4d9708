"""The eleven dimensions of Step-Audio 2's paralinguistics as one typed schema, and the columns of whatever speaks for one.

The dimensions are those of StepEval-Audio-Paralinguistic (arXiv 2507.16632, section 5.2). A dimension has a closed set of
labels where the field agrees on one, and is open (labels in lower snake case) where it does not. Null is an abstention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from manifests.schema import field

Dimension = Literal[
    "gender",
    "age",
    "timbre",
    "scenario",
    "event",
    "emotion",
    "pitch",
    "rhythm",
    "speaking_speed",
    "speaking_style",
    "vocal_activity",
]

OTHER = "other"
# None: open. Emotions are RAVDESS' eight (Livingstone and Russo 2018); vocal activities VocalSound's six (Gong et al. 2022),
# with speech, singing, crying and silence.
LABELS: Mapping[Dimension, tuple[str, ...] | None] = {
    "gender": ("female", "male"),
    "age": ("child", "teen", "adult", "elderly"),
    "timbre": None,
    "scenario": None,
    "event": None,
    "emotion": ("angry", "calm", "disgusted", "fearful", "happy", "neutral", "sad", "surprised", OTHER),
    "pitch": ("low", "mid", "high"),
    "rhythm": ("even", "moderate", "varied", "halting"),
    "speaking_speed": ("slow", "normal", "fast"),
    "speaking_style": None,
    "vocal_activity": (
        "silence",
        "speech",
        "singing",
        "laughter",
        "crying",
        "cough",
        "sigh",
        "sneeze",
        "sniff",
        "throat_clearing",
        OTHER,
    ),
}
DIMENSIONS = tuple(LABELS)
# First year of each age: below the next one's.
AGE_FROM_YEARS = {"child": 0, "teen": 13, "adult": 18, "elderly": 60}
_SNAKE = re.compile(r"^[a-z0-9]+(_[a-z0-9]+)*$")

POSTERIOR = pa.list_(
    pa.struct(
        [
            field("label", pa.string(), "label of the dimension"),
            field("prob", pa.float32(), "probability, 0 to 1"),
        ]
    )
)

CLASSIFIER_ADDS = pa.schema(
    [
        field("value", pa.string(), "label of the dimension that the classifier is for; null when abstained"),
        field("confidence", pa.float32(), "probability of the most probable label, 0 to 1, also where it is too low for a value"),
        field("posterior", POSTERIOR, "probability of every label, in the classifier's order"),
        field("age_years", pa.float32(), "expected age; only of the dimension age, where the classifier knows its labels' ages"),
        field("source", pa.string(), "classifier that spoke: name of the model, and its revision where it has one"),
    ]
)

TAG = pa.struct(
    [
        field("value", pa.string(), "label; null when abstained"),
        field(
            "confidence",
            pa.float32(),
            "probability of the best label, 0 to 1, also where it is too low for a value; null where the value is measured",
        ),
        field("posterior", POSTERIOR, "mean posterior of the classifiers that voted; null without classifiers"),
        field(
            "agreement",
            pa.float32(),
            "share of the voting classifiers whose own best label is that of the mean; null without classifiers",
        ),
        field("source", pa.string(), "who spoke: names of classifiers, or of the layer that it is measured in, joined by ' + '"),
    ]
)


def is_label(dimension: Dimension, label: str) -> bool:
    """Whether the dimension has the label; an open one has every word in lower snake case."""
    known = LABELS[dimension]
    return label in known if known is not None else bool(_SNAKE.match(label))


def label_rule(dimension: Dimension) -> str:
    """What a label of the dimension must be, for errors."""
    known = LABELS[dimension]
    return f"labels of {dimension} are {', '.join(known)}" if known else f"labels of {dimension} are words in lower snake case"


def snake(label: str) -> str:
    """A model's label in lower snake case: ``Male speech, man speaking`` -> ``male_speech_man_speaking``."""
    return "_".join(re.findall(r"[a-z0-9]+", label.lower()))


def age_label(years: float) -> str:
    """The label of an age in years."""
    return [label for label, first in AGE_FROM_YEARS.items() if years >= first][-1]


def best_label(posterior: Mapping[str, float]) -> str:
    """The most probable label, the first of equals."""
    return max(posterior, key=posterior.__getitem__)


def posterior_value(posterior: Mapping[str, float]) -> list[dict[str, Any]]:
    """Probabilities by label as a value of POSTERIOR, put back within 0 and 1 where rounding pushed them out."""
    return [{"label": label, "prob": _prob(prob)} for label, prob in posterior.items()]


def classifier_row(
    dimension: Dimension,
    posterior: Mapping[str, float],
    source: str,
    min_confidence: float | None,
    age_years: float | None = None,
) -> dict[str, Any]:
    """One row of CLASSIFIER_ADDS. No value where the best label is below ``min_confidence`` or none of the dimension's."""
    best = best_label(posterior)
    is_sure = (min_confidence is None or posterior[best] >= min_confidence) and is_label(dimension, best)
    return {
        "value": best if is_sure else None,
        "confidence": _prob(posterior[best]),
        "posterior": posterior_value(posterior),
        "age_years": age_years if is_sure else None,
        "source": source,
    }


def expected_years(posterior: Mapping[str, float], label_years: Mapping[str, float]) -> float | None:
    """Mean age over the labels whose age is known, by their probabilities; None where none of them has any."""
    total = sum(posterior[label] for label in label_years)
    return sum(posterior[label] * years for label, years in label_years.items()) / total if total > 0 else None


def vote(posteriors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of posteriors over the labels that all of them have; empty where they share none.

    A linear opinion pool (Stone 1961): right where the posteriors are calibrated, and no voter can veto a label.
    """
    common = [label for label in posteriors[0] if all(label in posterior for posterior in posteriors)]
    return {label: sum(posterior[label] for posterior in posteriors) / len(posteriors) for label in common}


def _prob(prob: float) -> float:
    return min(1.0, max(0.0, float(prob)))
