"""The join: what it finds, and that it does not matter how it is cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.acoustic_fingerprint import QUIET, Stretch
from manifests.console import progress
from manifests.errors import RequestError
from pipeline.copies.comparison import MOST_PARTNERS, sketch_word
from pipeline.copies.frames import BLOCK_FRAMES, PAD, Frames, FramesWriter
from pipeline.copies.landmarks import FRAMES_A_WORD, KEY_GAP, landmarks, sketch
from pipeline.copies.near import distinct, find_stretches, most_voted

RANDOM = np.random.default_rng(0)


def drawn(num_frames: int) -> np.ndarray:
    """Frames that change as slowly as those of speech."""
    flips = RANDOM.random((num_frames, 32)) < 0.12
    bits = np.logical_xor.accumulate(flips, axis=0)
    return np.maximum((bits << np.arange(32)).sum(axis=1), 1).astype(np.uint32)


def copied(clip: np.ndarray, rate: float) -> np.ndarray:
    """With that many wrong bits, half of the frames spared, as codecs do."""
    wrong = (RANDOM.random((len(clip), 32)) < 2 * rate) & (RANDOM.random((len(clip), 1)) < 0.5)
    return np.where(clip == QUIET, QUIET, np.maximum(clip ^ (wrong << np.arange(32)).sum(axis=1).astype(np.uint32), 1))


def written(folder, clips) -> Frames:
    writer = FramesWriter(str(folder))
    half = len(clips) // 2
    for some in (clips[:half], clips[half:]):
        writer.append(pa.chunked_array([pa.array([c if c is None else c.tolist() for c in some], pa.list_(pa.uint32()))]))
    return writer.close()


def found(frames, **options):
    with progress() as bars:
        return find_stretches(frames, bars, **options)


@pytest.fixture(scope="module")
def clips():
    """200 strangers; copies with noise of the first 40, trimmed; and a jingle in three of the others."""
    strangers = [drawn(int(length)) for length in RANDOM.integers(150, 500, 200)]
    copies = [copied(clip[20:-5], 0.05) for clip in strangers[:40]]
    jingle = drawn(160)
    for number, place in ((100, 10), (120, 200), (140, 77)):
        strangers[number] = np.concatenate([drawn(place), copied(jingle, 0.02), drawn(230)])
    return [*strangers, None, *copies, np.zeros(50, np.uint32), drawn(3)]


@pytest.fixture(scope="module")
def frames(clips, tmp_path_factory):
    return written(tmp_path_factory.mktemp("frames"), clips)


def test_frames_are_read_as_they_were_written(frames, clips):
    assert len(frames) == len(clips)
    for number, clip in enumerate(clips):
        assert frames.clip(number).tolist() == ([] if clip is None else clip.tolist())
    assert frames.num_audible[:3].tolist() == [np.count_nonzero(clip) for clip in clips[:3]]
    assert frames.clip_at(frames.start[5:8] + 3).tolist() == [5, 6, 7]
    ((first, last),) = frames.blocks()
    assert not frames.read(first, first + PAD).any()
    assert not frames.read(last - PAD, last).any()


def test_copies_and_jingles_are_found_with_their_places_and_strangers_are_not(frames, clips):
    table = found(frames)
    pairs = {(row["left"], row["right"]): row for row in table.to_pylist()}
    assert pairs.keys() == {*((n, 201 + n) for n in range(40)), (100, 120), (100, 140), (120, 140)}
    for number in range(40):
        row = pairs[number, 201 + number]
        assert row["left_frame"] - row["right_frame"] == 20
        assert row["num_frames"] > 0.9 * len(clips[201 + number])
        assert row["bit_error_rate"] == pytest.approx(0.05, abs=0.02)
    jingle = pairs[100, 120]
    assert jingle["left_frame"] == pytest.approx(10, abs=5)
    assert jingle["right_frame"] == pytest.approx(200, abs=5)
    assert jingle["num_frames"] == pytest.approx(160, abs=10)


def test_rounds_ranges_and_workers_change_nothing(frames):
    whole = found(frames)
    assert found(frames, index_bytes=40_000, range_entries=1000).equals(whole)
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert found(frames, range_entries=8000, scheduler=cluster.scheduler_address).equals(whole)


def test_blocks_change_nothing(frames, monkeypatch):
    whole = found(frames)
    monkeypatch.setattr("pipeline.copies.frames.BLOCK_FRAMES", 3000)
    assert len(list(frames.blocks())) > 20
    assert found(frames).equals(whole)


def test_only_pairs_across_the_border_are_asked_for(frames):
    assert found(frames, num_left=110).select(["left", "right"]).to_pylist() == [
        *({"left": n, "right": 201 + n} for n in range(40)),
        {"left": 100, "right": 120},
        {"left": 100, "right": 140},
    ]
    assert found(frames, num_left=0).num_rows == 0
    assert found(frames, num_left=len(frames)).num_rows == 0


def test_a_clip_that_comes_a_hundred_times_is_a_chain(tmp_path):
    clip = drawn(300)
    frames = written(tmp_path, [copied(clip, 0.01) for _ in range(100)])
    table = found(frames)
    assert {(n, n + 1) for n in range(99)} <= set(zip(*(table[side].to_pylist() for side in ("left", "right")), strict=True))
    across = found(frames, num_left=1)  # the others do not stand between the registry's clip and the last of them
    assert across["right"].to_pylist() == list(range(1, 100))
    assert MOST_PARTNERS < 99


def test_a_hum_and_silence_cost_nothing_and_match_nothing(tmp_path):
    hum = np.full(400, 0x5A5A5A5A, np.uint32)
    table = found(written(tmp_path, [hum, *(drawn(200) for _ in range(5)), np.zeros(300, np.uint32), np.zeros(300, np.uint32)]))
    assert table.num_rows == 0


@pytest.mark.parametrize("clips", [[], [None], [drawn(4)]])
def test_next_to_nothing_is_joined(tmp_path, clips):
    assert found(written(tmp_path, clips)).num_rows == 0


def test_a_clip_that_no_block_holds_is_refused(tmp_path):
    writer = FramesWriter(str(tmp_path))
    edges = pa.array([0, BLOCK_FRAMES], pa.int32())
    with pytest.raises(RequestError, match="28 hours"):
        writer.append(pa.chunked_array([pa.ListArray.from_arrays(edges, pa.array(np.ones(BLOCK_FRAMES, np.uint32)))]))


@given(st.lists(st.integers(1, 2**32 - 1), min_size=64, max_size=64), st.integers(0, 40))
def test_words_of_a_sketch_are_its_frames(values, first):
    frames = np.array(values, np.uint32)
    words = sketch(frames).view(np.uint64)
    word = int(sketch_word(words, first))
    assert [(word >> (4 * n)) & 15 for n in range(FRAMES_A_WORD)] == [v >> 20 & 15 for v in values[first : first + FRAMES_A_WORD]]


def test_a_landmark_does_not_depend_on_what_is_around_it_but_its_neighbours():
    clip, pad = drawn(300), np.zeros(KEY_GAP + 1, np.uint32)
    at, keys = landmarks(np.concatenate([pad, clip, pad]))
    part_at, part_keys = landmarks(np.concatenate([pad, clip[50:200], pad]))
    whole = dict(zip((at - 50).tolist(), keys.tolist(), strict=True))
    inside = [(place, key) for place, key in zip(part_at.tolist(), part_keys.tolist(), strict=True) if place > len(pad)]
    assert len(inside) > 20
    assert all(whole[place] == key for place, key in inside)


def test_the_offsets_with_most_votes_come_first():
    votes = [(1, 2, 7), (1, 2, 9), (1, 2, 7), (0, 5, -3)]
    assert most_voted(np.array(votes, np.int64)).tolist() == [[0, 5, -3], [1, 2, 7], [1, 2, 9]]


def test_a_stretch_that_is_seen_twice_is_one():
    long, same, other = Stretch(0, 10, 90, 80, 0.1), Stretch(5, 16, 60, 50, 0.1), Stretch(0, 200, 60, 50, 0.1)
    assert distinct([same, other, long]) == [long, other]
