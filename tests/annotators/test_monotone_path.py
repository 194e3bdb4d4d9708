from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.monotone_path import best_path, label_spans


def random_posteriors(seed: int, num_frames: int, num_labels: int) -> np.ndarray:
    logits_FV = np.random.default_rng(seed).normal(scale=2.0, size=(num_frames, num_labels))
    return (logits_FV - np.log(np.exp(logits_FV).sum(axis=1, keepdims=True))).astype(np.float32)


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label]


@given(seed=st.integers(0, 10_000), num_frames=st.integers(1, 7), labels=st.lists(st.integers(1, 2), min_size=1, max_size=4))
def test_no_other_path_of_the_labels_is_likelier(seed: int, num_frames: int, labels: list[int]) -> None:
    log_probs_FV = random_posteriors(seed, num_frames, 3)
    paths = [path for path in itertools.product(range(3), repeat=num_frames) if collapsed(path) == labels]
    spans = label_spans(log_probs_FV, labels, blank=0)
    if spans is None:
        assert not paths
        return
    found = [0] * num_frames
    for label, span in zip(labels, spans, strict=True):
        found[span.start : span.end] = [label] * (span.end - span.start)
        assert span.prob == pytest.approx(np.exp(log_probs_FV[span.start : span.end, label]).mean(), rel=1e-5)

    def score(path: tuple[int, ...] | list[int]) -> float:
        return float(log_probs_FV[np.arange(num_frames), list(path)].sum(dtype=np.float64))

    assert collapsed(tuple(found)) == labels
    assert score(found) == pytest.approx(max(map(score, paths)), abs=1e-5)


def test_forced_alignment_is_torchaudios() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchaudio.functional")
    log_probs_FV = random_posteriors(1, 200, 30)
    labels = np.random.default_rng(2).integers(1, 30, 40).tolist()
    spans = label_spans(log_probs_FV, labels, blank=0)
    with pytest.warns(UserWarning, match="forced_align"):
        path, scores = functional.forced_align(torch.tensor(log_probs_FV)[None], torch.tensor(labels)[None])
    expected = functional.merge_tokens(path[0], scores[0])
    assert spans is not None
    assert [(span.start, span.end) for span in spans] == [(span.start, span.end) for span in expected]


def test_labels_that_do_not_fit_have_no_path() -> None:
    log_probs_FV = random_posteriors(3, 3, 4)
    assert label_spans(log_probs_FV, [1, 2, 3], blank=0) is not None
    assert label_spans(log_probs_FV, [1, 1, 2], blank=0) is None  # equal neighbours need a blank between them
    assert label_spans(np.zeros((0, 4), np.float32), [1], blank=0) is None
    assert label_spans(log_probs_FV, [], blank=0) == []


def test_every_state_is_passed_in_order() -> None:
    scores_FN = np.full((6, 3), -1.0)
    scores_FN[:3, 0] = scores_FN[3, 1] = scores_FN[4:, 2] = 0.0
    path_F = best_path(scores_FN)
    assert path_F is not None
    assert path_F.tolist() == [0, 0, 0, 1, 2, 2]
    assert best_path(scores_FN[:2]) is None
