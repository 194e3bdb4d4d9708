from __future__ import annotations

import numpy as np
import pytest

from annotators.silero import FRAME_SAMPLES, LEVEL_SAMPLES, SileroConfig, speech_spans
from manifests.contracts import Audio, ChannelAudio
from manifests.spans import Span

QUIET, LOUD = 0.05, 0.95
NO_LEVELS = np.zeros(0, np.float32)


def spans_of(probs: list[float], **config: float) -> list[Span]:
    exact = SileroConfig(pad_ms=0, refine_ms=0, **config)
    return [found.span for found in speech_spans(np.array(probs, np.float32), NO_LEVELS, len(probs) * FRAME_SAMPLES, exact)]


def test_same_spans_as_the_package(conversation: Audio) -> None:
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("silero_vad")
    expected = package.get_speech_timestamps(torch.from_numpy(conversation), package.load_silero_vad())
    found = SileroConfig(refine_ms=0).build().segment(ChannelAudio(b"", 0, conversation))
    assert [tuple(heard.span) for heard in found] == [(span["start"], span["end"]) for span in expected]


def test_state_is_carried_over_calls(conversation: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    probs, powers = SileroConfig().build().hear(conversation)
    monkeypatch.setattr("annotators.silero.FRAMES_A_CALL", 37)
    again, same_powers = SileroConfig().build().hear(conversation)
    np.testing.assert_allclose(again, probs, atol=1e-5)
    assert (same_powers == powers).all()
    np.testing.assert_allclose(powers[:100].mean(), np.square(conversation[: 100 * 128]).mean(), rtol=1e-4)


def test_many_streams_are_heard_as_each_alone(conversation: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: of no sample, one, silence, and lengths that end in every round of every group."""
    voices = [
        conversation[i * 7000 : i * 7000 + length] for i, length in enumerate((512, 513, 9000, 9001, 40_000, 41_000, 20_000))
    ]
    streams = [np.zeros(0, np.float32), np.ones(1, np.float32), np.zeros(30_000, np.float32), *voices, conversation]
    part = SileroConfig().build()
    alone = [part.hear(stream) for stream in streams]
    for streams_a_call, frames_a_call in ((16, 1024), (3, 37), (1, 1024)):
        monkeypatch.setattr("annotators.silero.STREAMS_A_CALL", streams_a_call)
        monkeypatch.setattr("annotators.silero.FRAMES_A_CALL", frames_a_call)
        for (probs, powers), (probs_alone, powers_alone) in zip(part.hear_many(streams), alone, strict=True):
            np.testing.assert_array_equal(probs, probs_alone)
            np.testing.assert_array_equal(powers, powers_alone)
    assert part.hear_many([]) == []


def test_hysteresis() -> None:
    speech, between = [LOUD] * 10, [0.4] * 5
    assert spans_of([QUIET] * 4 + speech + between + speech + [QUIET] * 8) == [Span(4 * 512, 29 * 512)]
    assert spans_of([*speech, QUIET, QUIET, *speech]) == [Span(0, 22 * 512)], "64 ms of silence do not end speech"
    assert spans_of(speech + [QUIET] * 5 + speech) == [Span(0, 10 * 512), Span(15 * 512, 25 * 512)]
    assert spans_of([QUIET] * 4 + [LOUD] * 7 + [QUIET] * 9) == [], "224 ms are under min_speech_ms"
    assert spans_of([LOUD] * 7 + [QUIET] * 9, min_speech_ms=200) == [Span(0, 7 * 512)]


def test_padding_shares_a_short_silence_and_stays_inside() -> None:
    probs = np.array([LOUD] * 10 + [QUIET] * 4 + [LOUD] * 10, np.float32)
    found = speech_spans(probs, NO_LEVELS, 24 * FRAME_SAMPLES - 100, SileroConfig(pad_ms=200, min_silence_ms=90, refine_ms=0))
    assert [heard.span for heard in found] == [Span(0, 12 * 512), Span(12 * 512, 24 * 512 - 100)]
    assert found[0].speech_prob == pytest.approx(LOUD)


def test_edges_lie_where_the_level_rises_and_falls() -> None:
    """Speech from sample 10,000 to 30,000, which the network hears from 10,752 to 29,184."""
    probs = np.full(64, QUIET, np.float32)
    probs[21:57] = LOUD
    audio = np.random.default_rng(0).normal(size=64 * FRAME_SAMPLES) * 1e-3
    audio[10_000:30_000] *= 100
    powers = np.square(audio.reshape(-1, LEVEL_SAMPLES)).mean(axis=1)
    (found,) = speech_spans(probs, powers, len(audio), SileroConfig(pad_ms=0))
    assert found.span.start_sample == pytest.approx(10_000, abs=LEVEL_SAMPLES)
    assert found.span.end_sample == pytest.approx(30_000, abs=LEVEL_SAMPLES)
    (padded,) = speech_spans(probs, powers, len(audio), SileroConfig(pad_ms=30))
    assert padded.span == Span(found.span.start_sample - 480, found.span.end_sample + 480)
