from __future__ import annotations

import numpy as np
import pytest

from annotators.speaker_encoder import SpeakerEncoder
from manifests.contracts import Audio

FIRST, SECOND = slice(170_000, 225_000), slice(360_000, 430_000)  # one speaker each


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    pytest.importorskip("torch")
    return SpeakerEncoder()


def test_embeddings_are_unit_vectors_that_tell_voices_apart(encoder: SpeakerEncoder, conversation: Audio) -> None:
    first, second = encoder.features(conversation[FIRST]), encoder.features(conversation[SECOND])
    half = len(first) // 2, len(second) // 2
    a, b, c, d = encoder.embed([first[: half[0]], first[half[0] :], second[: half[1]], second[half[1] :]])
    np.testing.assert_allclose([np.linalg.norm(v) for v in (a, b, c, d)], 1.0, rtol=1e-5)
    assert min(a @ b, c @ d) > max(a @ c, b @ d)


def test_level_does_not_matter_below_the_target(encoder: SpeakerEncoder, conversation: Audio) -> None:
    quiet = encoder.features(conversation[SECOND] * 0.1)
    quieter = encoder.features(conversation[SECOND] * 0.01)
    vectors = encoder.embed([quiet, quieter])
    assert vectors[0] @ vectors[1] > 0.9999


def test_items_do_not_influence_each_other(encoder: SpeakerEncoder, conversation: Audio) -> None:
    stretches = [encoder.features(conversation[start : start + 30_000]) for start in (120_000, 200_000, 300_000)]
    together = encoder.embed(stretches)
    alone = np.concatenate([encoder.embed([stretch]) for stretch in stretches])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_one_frame_and_no_stretch(encoder: SpeakerEncoder, conversation: Audio) -> None:
    assert encoder.embed([encoder.features(conversation[SECOND])[:1]]).shape == (1, 256)
    assert encoder.embed([]).shape == (0, 256)


def test_fewer_windows_give_nearly_the_same_vector(encoder: SpeakerEncoder, conversation: Audio) -> None:
    stretch = encoder.features(conversation[SECOND])
    half_overlapped, touching = encoder.embed([stretch])[0], encoder.embed([stretch], hop_frames=160)[0]
    assert 0.97 < half_overlapped @ touching < 1.0
