"""Clips: within bounds, disjoint, cut where the recipe says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifests.spans import Span, intersect, merge, total
from pipeline.clipset import ClipSetConfig, cut_clips

RATE = 1000
CONFIG = ClipSetConfig(max_s=5.0, max_pause_s=0.5, min_s=0.2, pad_s=0.1)

spans = st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 9_000)).map(lambda t: Span(t[0], t[0] + t[1])), max_size=12)
turns = st.lists(st.tuples(spans.filter(bool).map(lambda s: s[0]), st.sampled_from(["a", "b", "c"])), max_size=12)


@given(speech=spans, turns=turns, num_samples=st.integers(0, 65_000))
def test_clips_are_disjoint_bounded_and_inside_the_recording(speech, turns, num_samples):
    clips = cut_clips(speech, turns, num_samples, RATE, CONFIG)
    previous_end = 0
    for clip in clips:
        assert previous_end <= clip.span.start_sample < clip.span.end_sample <= num_samples
        assert clip.span.num_samples <= CONFIG.max_s * RATE
        inside = [Span(0, clip.span.num_samples)]
        assert clip.speech == intersect(clip.speech, inside) != []
        assert clip.overlap == intersect(clip.overlap, inside)
        previous_end = clip.span.end_sample


@given(speech=spans, turns=turns)
def test_speech_that_is_long_enough_is_never_lost(speech, turns):
    clips = cut_clips(speech, turns, 70_000, RATE, CONFIG)
    flat = merge(speech)
    covered = total(intersect([clip.span for clip in clips], flat))
    # What is missing are stretches shorter than min_s: at most one for each place where something is cut.
    places = len(flat) + 2 * len(turns) + total(flat) // int(CONFIG.max_s * RATE / 2) + 1
    assert total(flat) - covered <= places * CONFIG.min_s * RATE


def test_a_speaker_change_cuts_and_overlap_is_counted():
    clips = cut_clips([Span(0, 4000)], [(Span(0, 2200), "a"), (Span(2000, 4000), "b")], 4000, RATE, CONFIG)
    assert [(c.speaker_label, c.span) for c in clips] == [("a", Span(0, 2200)), ("b", Span(2200, 4000))]
    assert [c.overlap for c in clips] == [[Span(2000, 2200)], []]


def test_a_short_pause_stays_and_a_long_one_cuts_with_padding():
    speech = [Span(1000, 2000), Span(2300, 3000), Span(4000, 5000)]
    clips = cut_clips(speech, [], 10_000, RATE, CONFIG)
    assert [c.span for c in clips] == [Span(900, 3100), Span(3900, 5100)]
    assert [c.speech for c in clips] == [[Span(100, 1100), Span(1400, 2100)], [Span(100, 1100)]]
    assert all(c.speaker_label is None for c in clips)


def test_long_speech_is_cut_at_the_longest_pause_of_the_second_half():
    speech = [Span(0, 3000), Span(3100, 4000), Span(4300, 6000)]
    clips = cut_clips(speech, [], 6000, RATE, CONFIG)
    assert [c.span for c in clips] == [Span(0, 4100), Span(4200, 6000)]


def test_speech_outside_every_turn_goes_to_the_speaker_before_it():
    clips = cut_clips([Span(0, 1000), Span(1200, 2000)], [(Span(0, 900), "a")], 2000, RATE, CONFIG)
    assert [c.speaker_label for c in clips] == ["a"]
