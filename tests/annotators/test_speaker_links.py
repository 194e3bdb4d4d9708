from __future__ import annotations

import numpy as np

from annotators.speaker_links import SpeakerLinks

A, B, C = np.eye(3)


def test_speakers_keep_their_names_whatever_their_order() -> None:
    links = SpeakerLinks(0.3)
    assert links.assign(np.stack([A, B]), np.array([5.0, 5.0])) == [0, 1]
    assert links.assign(np.stack([B + 0.1 * C, A]), np.array([1.0, 1.0])) == [1, 0]
    assert links.assign(np.stack([C, A]), np.array([1.0, 1.0])) == [2, 0]


def test_two_speakers_of_a_stretch_never_share_a_name() -> None:
    links = SpeakerLinks(0.3)
    links.assign(A[None], np.array([1.0]))
    assert links.assign(np.stack([A + 0.05 * B, A]), np.array([1.0, 1.0])) == [1, 0]


def test_a_centroid_of_nothing_is_a_new_speaker() -> None:
    links = SpeakerLinks(0.3)
    links.assign(A[None], np.array([1.0]))
    assert links.assign(np.full((1, 3), np.nan), np.array([1.0])) == [1]
    assert links.assign(A[None], np.array([1.0])) == [0]
    assert links.assign(np.zeros((0, 3)), np.zeros(0)) == []
