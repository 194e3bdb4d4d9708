"""Which clips make one document: whatever lies in a recording, documents keep to their bounds and take no clip twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.document_kinds import ContinuationDocuments, ConversationDocuments
from pipeline.grouping import Group, Placed, continuations, conversations

RATE = 100


def placed(number: int, start: int, end: int, speaker: str | None = "a", **changes: object) -> Placed:
    clip = Placed(number, b"r", 0, RATE, start, end, speaker, 0, True)
    return replace(clip, **changes)  # type: ignore[arg-type]


@st.composite
def clips(draw: st.DrawFn) -> list[Placed]:
    """Up to 24 clips of two recordings of two channels, in any order; those of one channel do not overlap."""
    found: list[Placed] = []
    for recording in (b"r", b"s"):
        for channel in (0, 1):
            at = draw(st.integers(0, 50))
            for _ in range(draw(st.integers(0, 6))):
                start, length = at + draw(st.integers(0, 400)), draw(st.integers(1, 300))
                speaker, overlap = draw(st.sampled_from(["a", "b", "c", None])), draw(st.integers(0, length))
                found.append(
                    Placed(len(found), recording, channel, RATE, start, start + length, speaker, overlap, draw(st.booleans()))
                )
                at = start + length
    return draw(st.permutations(found))


def numbers(groups: Iterable[Group]) -> list[int]:
    return [number for group in groups for turn in group for number in turn]


@given(clips(), st.sampled_from(["any", "one"]), st.integers(0, 3), st.integers(1, 12), st.integers(2, 5))
def test_continuations_keep_to_their_bounds(found: list[Placed], speakers: str, gap: int, longest: int, most: int) -> None:
    config = ContinuationDocuments(speakers=speakers, max_gap_s=gap, max_s=longest, max_turns=most)  # type: ignore[arg-type]
    groups, by_number = continuations(found, config), {clip.number: clip for clip in found}
    assert len(numbers(groups)) == len({*numbers(groups)})
    for group in groups:
        run = [by_number[number] for (number,) in group]
        assert 2 <= len(run) <= most
        assert sum(clip.num_samples for clip in run) <= longest * RATE
        assert all(clip.is_free for clip in run)
        assert len({(clip.recording_id, clip.channel) for clip in run}) == 1
        assert speakers == "any" or len({clip.speaker for clip in run}) == 1
        for before, after in pairwise(run):
            assert 0 <= after.start_sample - before.end_sample <= gap * RATE
            # Nothing that lies between was passed over.
            assert not [
                c
                for c in found
                if c != after and _is_beside(c, after) and before.start_sample < c.start_sample < after.start_sample
            ]


def _is_beside(clip: Placed, other: Placed) -> bool:
    return (clip.recording_id, clip.channel) == (other.recording_id, other.channel)


@given(clips(), st.integers(0, 3), st.integers(1, 12), st.integers(2, 5), st.sampled_from([0.0, 0.2, 1.0]))
def test_conversations_keep_to_their_bounds(found: list[Placed], gap: int, longest: int, most: int, share: float) -> None:
    config = ConversationDocuments(max_gap_s=gap, max_s=longest, max_turns=most, max_overlap_share=share)
    groups, by_number = conversations(found, config), {clip.number: clip for clip in found}
    assert len(numbers(groups)) == len({*numbers(groups)})
    for group in groups:
        turns = [[by_number[number] for number in turn] for turn in group]
        flat = [clip for turn in turns for clip in turn]
        assert len(turns) % 2 == 0 < len(turns) <= most
        assert len({clip.recording_id for clip in flat}) == 1
        assert sum(clip.num_samples for clip in flat) <= longest * RATE
        assert all(clip.is_free and clip.overlap_samples <= share * clip.num_samples for clip in flat)
        assert [len({clip.speaker for clip in turn}) for turn in turns] == [1] * len(turns)
        speakers = [turn[0].speaker for turn in turns]
        assert None not in speakers
        assert {*speakers[::2]} != {*speakers[1::2]}
        assert len({*speakers[::2]}) == len({*speakers[1::2]}) == 1
        for before, after in pairwise(flat):
            shared = before.end_sample - after.start_sample
            assert shared <= share * min(before.num_samples, after.num_samples)
            assert -shared <= gap * RATE
            between = [
                c
                for c in found
                if c.recording_id == before.recording_id and before.start_sample < c.start_sample < after.start_sample
            ]
            assert not between


@given(clips(), st.randoms())
def test_the_order_in_which_clips_come_decides_nothing(found: list[Placed], random) -> None:
    shuffled = random.sample(found, len(found))
    assert continuations(shuffled, ContinuationDocuments()) == continuations(found, ContinuationDocuments())
    assert conversations(shuffled, ConversationDocuments()) == conversations(found, ConversationDocuments())


def test_a_clip_that_is_left_out_ends_a_continuation_and_a_conversation() -> None:
    found = [placed(n, 100 * n, 100 * n + 90, "ab"[n % 2], is_free=n != 2) for n in range(6)]
    assert continuations(found, ContinuationDocuments()) == [[[0], [1]], [[3], [4], [5]]]
    assert conversations(found, ConversationDocuments()) == [[[0], [1]], [[3], [4]]]


def test_clips_of_one_speaker_in_a_row_are_one_turn() -> None:
    found = [placed(n, 100 * n, 100 * n + 90, speaker) for n, speaker in enumerate("aabbab")]
    assert conversations(found, ConversationDocuments()) == [[[0, 1], [2, 3], [4], [5]]]


def test_an_answer_may_begin_the_next_conversation_and_a_third_speaker_does() -> None:
    found = [placed(n, 100 * n, 100 * n + 90, speaker) for n, speaker in enumerate("abaca")]
    assert conversations(found, ConversationDocuments()) == [[[0], [1]], [[2], [3]]]
    assert conversations(found[:4], ConversationDocuments(max_turns=2)) == [[[0], [1]], [[2], [3]]]


def test_talk_on_two_channels_is_one_conversation_unless_it_is_at_once() -> None:
    found = [placed(n, 100 * n, 100 * n + 90, f"channel {n % 2}", channel=n % 2) for n in range(4)]
    assert conversations(found, ConversationDocuments()) == [[[0], [1], [2], [3]]]
    assert continuations(found, ContinuationDocuments()) == [[[0], [2]], [[1], [3]]]
    over = [*found[:1], placed(1, 20, 40, "channel 1", channel=1), *found[2:]]
    assert conversations(over, ConversationDocuments()) == [[[1], [2]]]  # whoever was talked over answers nobody
