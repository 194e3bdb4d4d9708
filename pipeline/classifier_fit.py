"""Fitting of a small calibrated classifier: multinomial logistic regression, everything chosen on groups that are held out.

Strength of the penalty, temperature and the confidence below which nothing is said come from posteriors that each item got from
a model that had not seen its group (speaker, say). The classifier itself is then fitted on all items.

Shape legend: N items, V feature values, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from annotators.linear_classifier import HeldOutFigures, LabelFigures, LinearModel, softmax
from manifests.errors import RequestError

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # scikit-learn's C
MOST_FOLDS = 5
FEWEST_ITEMS = 30  # of a label, and of values that a precision is claimed of
FEWEST_GROUPS = 5  # that a precision is claimed over
MOST_CUTS = 20  # that are tried: among many some look better than they are
MAX_ITERATIONS = 1000
Z_ONE_SIDED = 1.644854  # 95 %


@dataclass(frozen=True)
class Examples:
    """Labelled items with their features."""

    features: np.ndarray  # [N, V], NaN where missing
    labels: np.ndarray  # [N] str
    groups: np.ndarray  # [N] str: what never lies on both sides of a fold
    layer_sizes: np.ndarray  # [V]: how many values the layer of each value has
    years: np.ndarray | None = None  # [N] ages, where the labels stand for them

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen_N: np.ndarray) -> Examples:
        """The chosen items, by a mask or indices."""
        years = None if self.years is None else self.years[chosen_N]
        return Examples(self.features[chosen_N], self.labels[chosen_N], self.groups[chosen_N], self.layer_sizes, years)


@dataclass(frozen=True)
class Fit:
    """A fitted model with what its held-out posteriors say of it."""

    labels: tuple[str, ...]
    label_years: dict[str, float]
    model: LinearModel
    strength: float
    num_folds: int
    held_out: np.ndarray  # [N, K] posteriors
    min_confidence: float | None  # None: no confidence reaches the precision

    def figures(self, examples: Examples) -> HeldOutFigures:
        """How the held-out posteriors do on the examples that the fit was made of."""
        return figures_of(self.held_out, examples, self.labels, self.min_confidence, self.num_folds, self.label_years)


def fit(examples: Examples, precision: float, fewest_items: int = FEWEST_ITEMS) -> Fit:
    """Fit on the examples, to state a label only where ``precision`` can be claimed.

    Raises RequestError for one label alone, for a label of fewer than ``fewest_items`` items, and for one of too few groups.
    """
    labels = tuple(sorted(set(examples.labels.tolist())))
    num_folds = _check(examples, labels, fewest_items)
    folds = list(group_folds(examples, num_folds))
    tried = [_held_out_logits(examples, labels, folds, strength) for strength in STRENGTHS]
    temperatures = [temperature_of(logits_NK, _indices(examples.labels, labels)) for logits_NK in tried]
    losses = [_loss(z / t, _indices(examples.labels, labels)) for z, t in zip(tried, temperatures, strict=True)]
    best = int(np.argmin(losses))
    held_out_NK = softmax(tried[best] / temperatures[best])
    is_right_N = held_out_NK.argmax(axis=1) == _indices(examples.labels, labels)
    return Fit(
        labels,
        _mean_years(examples, labels),
        regression(examples, labels, STRENGTHS[best], temperatures[best]),
        STRENGTHS[best],
        num_folds,
        held_out_NK,
        confidence_for(held_out_NK.max(axis=1), is_right_N, examples.groups, precision),
    )


def regression(examples: Examples, labels: Sequence[str], strength: float, temperature: float = 1.0) -> LinearModel:
    """Standardised multinomial logistic regression with an L2 penalty; a missing value is the mean of those that are there.

    Layers are scaled to equal norm, so that one of 256 values and one of 7 have equal say: in emotion that takes the
    average recall from 54 to 55 % and the log loss from 1.42 to 1.25 nats.
    """
    from sklearn.linear_model import LogisticRegression

    mean_V = np.nan_to_num(np.nanmean(examples.features, axis=0))
    spread_V = np.nan_to_num(np.nanstd(examples.features, axis=0))
    scale_V = np.where(spread_V > 0, spread_V, 1.0) * np.sqrt(examples.layer_sizes)
    standard_NV = np.nan_to_num((examples.features - mean_V) / scale_V)
    fitted = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(standard_NV, _indices(examples.labels, labels))
    if len(labels) > 2:
        return LinearModel(mean_V, scale_V, fitted.coef_, fitted.intercept_, temperature)
    # Of two labels scikit-learn keeps the second's logit alone; the first's is 0.
    weight_KV, bias_K = np.vstack([0.0 * fitted.coef_, fitted.coef_]), np.concatenate([[0.0], fitted.intercept_])
    return LinearModel(mean_V, scale_V, weight_KV, bias_K, temperature)


def group_folds(examples: Examples, num_folds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices to fit on, indices held out) of each fold: no group on both sides, labels spread as evenly as groups allow.

    Raises RequestError where a fold would be fitted without one of the labels.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    for fitted, held_out in splitter.split(examples.features, examples.labels, examples.groups):
        if lacking := sorted(set(examples.labels.tolist()) - set(examples.labels[fitted].tolist())):
            raise RequestError(f"label {lacking[0]!r} comes from too few groups to hold some out; add speakers of it")
        yield fitted, held_out


def temperature_of(logits_NK: np.ndarray, label_N: np.ndarray) -> float:
    """The temperature of least log loss (Guo et al., "On calibration of modern neural networks", ICML 2017)."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda log: _loss(logits_NK / math.exp(log), label_N), bounds=(-4.0, 4.0), method="bounded")
    return math.exp(found.x)


def confidence_for(confidence_N: np.ndarray, is_right_N: np.ndarray, group_N: np.ndarray, precision: float) -> float | None:
    """The least confidence from which on the share of right labels is at least ``precision``; None where there is none.

    "At least" is by the lower end of Wilson's interval, one-sided at 95 %, over at least 30 items of 5 groups: the best of many
    cuts through the same items looks better than it is. Items of a group hang together, so they count as fewer (Kish's design
    effect, by the correlation within groups over all items).
    """
    order = np.argsort(-confidence_N, kind="stable")
    sorted_N, right_N = confidence_N[order], is_right_N[order]
    _, place_N = np.unique(group_N[order], return_inverse=True)
    ends = np.flatnonzero(np.append(np.diff(sorted_N) < 0, True)) + 1  # a cut lies between two different confidences
    ends = ends[ends >= FEWEST_ITEMS]
    correlation = correlation_within(is_right_N, group_N) if len(ends) else 0.0
    for number in ends[np.unique(np.linspace(0, len(ends) - 1, MOST_CUTS).astype(int))][::-1] if len(ends) else ():
        if _lower_limit(right_N[:number], place_N[:number], correlation) >= precision:
            return float(sorted_N[number - 1])
    return None


def correlation_within(is_right_N: np.ndarray, group_N: np.ndarray) -> float:
    """How alike the items of a group are, 0 to 1: the intraclass correlation by analysis of variance (Donner and Koval 1980)."""
    _, place_N, number_G = np.unique(group_N, return_inverse=True, return_counts=True)
    number, num_groups = len(place_N), len(number_G)
    if num_groups < 2 or num_groups == number:
        return 0.0
    mean_G = np.bincount(place_N, weights=is_right_N) / number_G
    between = float((number_G * (mean_G - is_right_N.mean()) ** 2).sum()) / (num_groups - 1)
    within = float(((is_right_N - mean_G[place_N]) ** 2).sum()) / (number - num_groups)
    size = (number - float((number_G**2).sum()) / number) / (num_groups - 1)
    spread = between + (size - 1.0) * within
    return min(1.0, max(0.0, (between - within) / spread)) if spread > 0 else 0.0


def figures_of(
    posterior_NK: np.ndarray,
    examples: Examples,
    labels: Sequence[str],
    min_confidence: float | None,
    num_folds: int,
    label_years: dict[str, float],
) -> HeldOutFigures:
    """Figures of posteriors that were made without the items' groups. Precision is 1 where nothing is stated."""
    label_N = _indices(examples.labels, labels)
    is_right_N = posterior_NK.argmax(axis=1) == label_N
    is_stated_N = posterior_NK.max(axis=1) >= (2.0 if min_confidence is None else min_confidence)
    recalls = {label: float(is_right_N[examples.labels == label].mean()) for label in labels}
    aged = [k for k, label in enumerate(labels) if label in label_years]
    years_N = posterior_NK @ np.array([label_years.get(label, 0.0) for label in labels])
    return HeldOutFigures(
        num_items=len(examples),
        num_groups=len(set(examples.groups.tolist())),
        num_folds=num_folds,
        accuracy=float(is_right_N.mean()),
        average_recall=float(np.mean(list(recalls.values()))),
        log_loss=float(abs(np.log(posterior_NK[np.arange(len(examples)), label_N]).mean())),
        coverage=float(is_stated_N.mean()),
        precision=float(is_right_N[is_stated_N].mean()) if is_stated_N.any() else 1.0,
        mean_age_error_years=float(np.abs(years_N - examples.years).mean()) if aged and examples.years is not None else None,
        labels={
            label: LabelFigures(
                num_items=int((examples.labels == label).sum()),
                num_groups=len(set(examples.groups[examples.labels == label].tolist())),
                recall=recalls[label] if (examples.labels == label).sum() >= FEWEST_ITEMS else None,
            )
            for label in labels
        },
    )


def _check(examples: Examples, labels: Sequence[str], fewest_items: int) -> int:
    """Number of folds that the labels' groups allow. Raises RequestError as ``fit`` does."""
    if len(labels) < 2:
        raise RequestError(f"labels are {', '.join(labels) or 'none'}; a classifier tells at least two apart")
    fewest = MOST_FOLDS
    for label in labels:
        of_label = examples.labels == label
        num_items, num_groups = int(of_label.sum()), len(set(examples.groups[of_label].tolist()))
        if num_items < fewest_items:
            raise RequestError(
                f"label {label!r} has {num_items} items with features; at least {fewest_items} are needed: add some or leave it out"
            )
        if num_groups < 2:
            raise RequestError(f"label {label!r} comes from one group; at least two are needed, or its voice would be the label")
        fewest = min(fewest, num_groups)
    return fewest


def _held_out_logits(
    examples: Examples, labels: Sequence[str], folds: Sequence[tuple[np.ndarray, np.ndarray]], strength: float
) -> np.ndarray:
    logits_NK = np.zeros((len(examples), len(labels)))
    for fitted, held_out in folds:
        logits_NK[held_out] = regression(examples.where(fitted), labels, strength).logits(examples.features[held_out])
    return logits_NK


def _mean_years(examples: Examples, labels: Sequence[str]) -> dict[str, float]:
    if examples.years is None:
        return {}
    return {label: float(examples.years[examples.labels == label].mean()) for label in labels}


def _indices(labels_N: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    place = {label: k for k, label in enumerate(labels)}
    return np.array([place[label] for label in labels_N.tolist()])


def _loss(logits_NK: np.ndarray, label_N: np.ndarray) -> float:
    """Mean negative log likelihood, nats."""
    raised_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    return float((np.log(np.exp(raised_NK).sum(axis=1)) - raised_NK[np.arange(len(label_N)), label_N]).mean())


def _lower_limit(is_right_N: np.ndarray, place_N: np.ndarray, correlation: float) -> float:
    """Lower end of the one-sided 95 % interval of the share that is right; 0 for too few groups. ``place`` numbers the groups."""
    number_G = np.bincount(place_N)
    if np.count_nonzero(number_G) < FEWEST_GROUPS:
        return 0.0
    number, p, z2 = len(is_right_N), float(is_right_N.mean()), Z_ONE_SIDED**2
    n = number / (1.0 + (float((number_G**2).sum()) / number - 1.0) * correlation)
    half = Z_ONE_SIDED * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return (p + z2 / (2 * n) - half) / (1 + z2 / n)
