"""Linking on arrays: the nearest first, whatever the order; nothing chains; and who was there keeps the first place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import speaker_linking
from pipeline.speaker_linking import TYPICAL, VoiceMeans, link, split_voices


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def persons(num: int, voices_each: int, noise: float, width: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(unit vectors, whose they are) in a random order."""
    random = np.random.default_rng(seed)
    of = random.permutation(np.repeat(np.arange(num), voices_each))
    centres = unit(random.normal(size=(num, width)))
    return unit(centres[of] + noise * unit(random.normal(size=(len(of), width)))), of


def groups(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def linked(vectors: np.ndarray, threshold: float, **options) -> np.ndarray:
    return link(VoiceMeans.of_clips(vectors, np.ones(len(vectors))), threshold, **options)


def merged_one_by_one(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """The definition, clip by clip: the nearest two persons become one, until none are near enough."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, TYPICAL)
    people = [[n] for n in range(len(vectors))]

    def mean(one: list[int], two: list[int]) -> float:
        return float(cosines[np.ix_(one, two)].mean())

    def nearness(one: list[int], two: list[int]) -> float:
        own = max(mean(one, one), threshold) * max(mean(two, two), threshold)
        return TYPICAL * mean(one, two) / float(np.sqrt(own))

    while len(people) > 1:
        near, i, j = max((nearness(people[i], people[j]), i, j) for i in range(len(people)) for j in range(i))
        if near < threshold:
            break
        people[j] += people.pop(i)
    return np.array([next(k for k, person in enumerate(people) if n in person) for n in range(len(vectors))])


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_merging_the_nearest_two_again_and_again_gives(seed: int) -> None:
    vectors, _ = persons(6, 4, 0.55, width=24, seed=seed)
    assert groups(linked(vectors, 0.72, num_neighbours=24)) == groups(merged_one_by_one(vectors, 0.72))


def test_who_varies_much_is_given_more_room() -> None:
    """Two voices of a changeable person are one with the mean cosine at which two of a steady person are not."""
    random = np.random.default_rng(0)

    def crowd(centre: np.ndarray, noise: float) -> np.ndarray:
        return unit(centre + noise * unit(random.normal(size=(50, 64))))

    first, other = unit(random.normal(size=(2, 64)))
    towards = unit((first + 0.5 * other)[None])[0]
    steady, alike = crowd(first, 0.2), crowd(towards, 0.2)
    loose = crowd(first, 0.6)
    assert (steady @ alike.T).mean() > (loose[:25] @ loose[25:].T).mean() > 0.7

    def are_one(one: np.ndarray, two: np.ndarray) -> bool:
        means = np.stack([one.mean(axis=0), two.mean(axis=0)]).astype(np.float32)
        return len(set(link(VoiceMeans(means, np.ones(2), np.array([1 / len(one), 1 / len(two)])), 0.74).tolist())) == 1

    assert are_one(loose[:25], loose[25:])
    assert not are_one(steady, alike)


@given(st.integers(0, 10_000))
def test_it_follows_the_voices_when_they_are_reordered(seed: int) -> None:
    vectors, _ = persons(12, 5, 0.6, seed=seed)
    order = np.random.default_rng(seed).permutation(len(vectors))
    there, here = linked(vectors, 0.6), linked(vectors[order], 0.6)
    assert groups(here) == {frozenset(np.argsort(order)[list(group)].tolist()) for group in groups(there)}


def test_the_place_is_that_of_the_first_voice_and_its_row_becomes_the_person() -> None:
    clips = unit(np.array([[1, 0], [0, 1], [1, 0.1], [1, -0.1]]))
    voices = VoiceMeans.of_clips(clips, np.array([1.0, 1.0, 2.0, 1.0]))
    assert link(voices, 0.7).tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(voices.means[0], (clips[0] + 2 * clips[2] + clips[3]) / 4, atol=1e-6)
    assert voices.weights[:2].tolist() == [4.0, 1.0]
    assert voices.selves[:2].tolist() == pytest.approx([(1 + 4 + 1) / 16, 1.0])


def test_a_chain_of_neighbours_does_not_pull_its_ends_together() -> None:
    angles = np.linspace(0, 2.4, 200)
    labels = linked(unit(np.stack([np.cos(angles), np.sin(angles)], axis=1)), 0.8)
    for group in groups(labels):
        inside = angles[list(group)]
        assert np.cos(inside[:, None] - inside[None]).mean() >= 0.8
    assert len(groups(labels)) >= 2


def test_equal_voices_are_one_person_however_many() -> None:
    labels = linked(np.repeat(unit(np.eye(3)), 500, axis=0), 0.7)
    assert groups(labels) == {frozenset(range(start, start + 500)) for start in (0, 500, 1000)}


def test_the_approximate_search_finds_what_the_exact_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, of = persons(300, 10, 0.5)
    monkeypatch.setattr(speaker_linking, "MOST_EXACT", 50)
    labels = linked(vectors, 0.6)
    assert groups(labels) == groups(of)
    assert labels.tobytes() == linked(vectors, 0.6).tobytes()


@given(st.integers(0, 10_000), st.integers(1, 59))
def test_later_voices_join_whom_they_would_have_joined(seed: int, num_before: int) -> None:
    vectors, of = persons(12, 5, 0.5, seed=seed)
    before = linked(vectors[:num_before], 0.6)
    known = np.unique(before)
    voices = VoiceMeans.of_clips(vectors[:num_before], np.ones(num_before))
    link(voices, 0.6)
    later = VoiceMeans.of_clips(vectors[num_before:], np.ones(len(vectors) - num_before))
    voices = VoiceMeans.concatenated([voices.take(known), later])
    after = link(voices, 0.6, np.arange(len(voices)) >= len(known))
    whole = np.concatenate([after[np.searchsorted(known, before)], after[len(known) :]])
    assert groups(whole) == groups(of)
    assert after[: len(known)].tolist() == list(range(len(known)))


def test_a_voice_between_two_known_persons_makes_them_one_with_the_older_place() -> None:
    def at(angle: float) -> np.ndarray:
        return np.array([[np.cos(angle), np.sin(angle)]], np.float32)

    known = np.concatenate([at(0.0), at(0.9), at(3.0)])
    assert linked(known, 0.7).tolist() == [0, 1, 2]
    voices = VoiceMeans.of_clips(np.concatenate([known, at(0.45)]), np.array([1.0, 1.0, 1.0, 3.0]))
    assert link(voices, 0.7, np.array([False] * 3 + [True])).tolist() == [0, 0, 2, 0]


def test_known_persons_are_not_linked_anew_when_nobody_came() -> None:
    assert linked(np.repeat(unit(np.eye(2)), 2, axis=0), 0.5, is_new_N=np.zeros(4, bool)).tolist() == [0, 1, 2, 3]


def test_no_voices_are_nobody() -> None:
    assert link(VoiceMeans.concatenated([]), 0.5).tolist() == []


def test_a_channel_is_one_voice_unless_its_clips_disagree() -> None:
    one, other = (
        unit(np.array([[1, 0.0, 0], [1, 0.2, 0], [1, 0, 0.2], [0.8, 0.6, 0]])),
        unit(np.array([[0, 0, 1.0], [0.1, 0, 1]])),
    )
    assert split_voices(one, np.ones(4), 0.7).tolist() == [0] * 4
    assert split_voices(one[:1], np.ones(1), 0.7).tolist() == [0]
    assert split_voices(np.concatenate([one, other]), np.ones(6), 0.7).tolist() == [0, 0, 0, 0, 4, 4]


def test_whom_a_recording_tells_apart_is_never_one() -> None:
    """Two pairs of twins in two recordings; a third recording of one alone joins whom it is nearest to."""
    angles = np.array([0.0, 0.2, 0.02, 0.22, 0.19])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    scenes = {0: frozenset({7}), 1: frozenset({7}), 2: frozenset({8}), 3: frozenset({8})}
    assert linked(vectors, 0.7).tolist() == [0] * 5
    assert linked(vectors, 0.7, scenes=scenes).tolist() == [0, 1, 0, 1, 1]
    assert linked(vectors, 0.7, scenes={n: frozenset({1}) for n in range(5)}).tolist() == [0, 1, 2, 3, 4]


@given(st.integers(0, 10_000))
def test_scenes_hold_through_every_merge(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(30, 3)) + 1.0)
    scenes = {n: frozenset(random.integers(0, 12, 2).tolist()) for n in range(30)}
    for group in groups(linked(vectors, 0.7, scenes=scenes)):
        assert len(frozenset().union(*(scenes[n] for n in group))) == sum(len(scenes[n]) for n in group)
