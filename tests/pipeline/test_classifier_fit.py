from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.linear_classifier import softmax
from manifests.errors import RequestError
from pipeline.classifier_fit import Examples, confidence_for, fit, group_folds, temperature_of


def examples(num_groups: int = 12, each: int = 10, distance: float = 2.0, labels: tuple[str, ...] = ("a", "b", "c")) -> Examples:
    """Clouds one a label, and an offset of each group's own that says nothing."""
    random = np.random.default_rng(0)
    names = np.array([labels[i % len(labels)] for i in range(num_groups * each)])
    groups = np.repeat([f"g{i}" for i in range(num_groups)], each)
    centres = np.stack([distance * (names == label) for label in labels], axis=1)
    offsets = np.repeat(random.normal(0, 1, (num_groups, 3)), each, axis=0)
    features = np.concatenate([centres + random.normal(0, 1, (len(names), len(labels))), offsets], axis=1)
    return Examples(features, names, groups, np.array([len(labels)] * len(labels) + [3] * 3))


def test_what_is_held_out_was_not_seen_and_the_model_finds_the_labels() -> None:
    given_ = examples()
    for fitted, held_out in group_folds(given_, 4):
        assert not set(given_.groups[fitted]) & set(given_.groups[held_out])
    found = fit(given_, 0.8)
    figures = found.figures(given_)
    assert found.labels == ("a", "b", "c")
    assert figures.average_recall > 0.75
    assert (figures.num_items, figures.num_groups, figures.num_folds) == (120, 12, 5)
    fresh = examples(num_groups=30)
    stated = found.model.posterior(fresh.features)
    assert (np.array(found.labels)[stated.argmax(axis=1)] == fresh.labels).mean() > 0.75
    np.testing.assert_allclose(stated.sum(axis=1), 1.0)


def test_the_precision_that_is_asked_for_holds_on_new_groups() -> None:
    found = fit(examples(num_groups=40, distance=1.5), 0.85)
    assert found.min_confidence is not None
    fresh = examples(num_groups=200, distance=1.5)
    fresh = Examples(fresh.features[400:], fresh.labels[400:], fresh.groups[400:], fresh.layer_sizes)
    posterior = found.model.posterior(fresh.features)
    stated = posterior.max(axis=1) >= found.min_confidence
    right = np.array(found.labels)[posterior.argmax(axis=1)] == fresh.labels
    assert 0.3 < stated.mean() < 1.0
    assert right[stated].mean() >= 0.85 - 0.02  # and less what 1,200 draws may be off
    assert right.mean() < 0.8


def test_labels_without_a_trace_in_the_features_reach_no_precision() -> None:
    given_ = examples(distance=0.0)
    found = fit(given_, 0.8)
    assert found.min_confidence is None
    assert found.figures(given_).coverage == 0.0
    # Calibrated: it is as unsure as it should be.
    assert found.held_out.max(axis=1).mean() == pytest.approx(1 / 3, abs=0.1)


def test_two_labels_and_missing_values() -> None:
    given_ = examples(num_groups=20, labels=("female", "male"))
    holes = np.random.default_rng(1).random(given_.features.shape) < 0.1
    found = fit(Examples(np.where(holes, np.nan, given_.features), given_.labels, given_.groups, given_.layer_sizes), 0.8)
    assert found.figures(given_).accuracy > 0.8
    assert np.isfinite(found.model.posterior(np.full((1, 5), np.nan))).all()


def test_scaled_logits_get_their_temperature_back() -> None:
    random = np.random.default_rng(0)
    logits_NK = random.normal(0, 2, (5000, 3))
    label_N = np.array([random.choice(3, p=row) for row in softmax(logits_NK)])
    assert temperature_of(4.0 * logits_NK, label_N) == pytest.approx(4.0, rel=0.1)


def test_a_cut_needs_items_and_a_precision_that_is_sure() -> None:
    confidence, each_its_own = np.linspace(1.0, 0.0, 200), np.arange(200)
    right = each_its_own < 100
    # 100 of 107 right: the lower limit of the precision is 0.88. The cut before that one is taken.
    assert confidence_for(confidence, right, each_its_own, 0.88) == pytest.approx(confidence[106], abs=0.05)
    assert confidence_for(confidence[:29], right[:29], each_its_own[:29], 0.5) is None  # all right, and too few
    assert confidence_for(confidence, ~right, each_its_own, 0.5) is None
    assert confidence_for(np.full(200, 0.5), right, each_its_own, 0.4) == 0.5
    assert confidence_for(np.full(200, 0.5), right, each_its_own, 0.5) is None  # one confidence: there is nothing to cut


def test_many_clips_of_few_voices_make_no_precision() -> None:
    confidence, right = np.linspace(1.0, 0.5, 200), np.arange(200) < 150
    assert confidence_for(confidence, right, np.arange(200) % 4, 0.5) is None
    # 15 of 20 voices right in all their clips: as sure as 15 of 20 clips, not as 150 of 200.
    apart, together = np.arange(200), np.arange(200) // 10
    mixed = np.full(200, 0.5)
    assert confidence_for(mixed, right, apart, 0.68) == 0.5
    assert confidence_for(mixed, right, together, 0.68) is None
    assert confidence_for(mixed, right, together, 0.55) == 0.5


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 9)), max_size=200), st.floats(0.1, 0.95))
def test_whatever_is_stated_is_right_as_often_as_asked(items: list[tuple[int, bool, int]], precision: float) -> None:
    confidence, right = np.array([c / 20 for c, _, _ in items]), np.array([r for _, r, _ in items], bool)
    groups = np.array([g for _, _, g in items], int)
    least = confidence_for(confidence, right, groups, precision)
    if least is not None:
        stated = confidence >= least
        assert stated.sum() >= 30
        assert len(set(groups[stated].tolist())) >= 5
        assert right[stated].mean() >= precision


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (examples(labels=("a",)), "a classifier tells at least two apart"),
        (examples(num_groups=2, each=20), "label 'a' has 14 items with features; at least 30 are needed"),
        (examples(num_groups=1, each=120), "comes from one group"),
    ],
)
def test_too_little_to_fit_on(made: Examples, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        fit(made, 0.8)
