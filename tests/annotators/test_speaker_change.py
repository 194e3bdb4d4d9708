from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.speaker_change import (
    BLOCK_SAMPLES,
    WINDOW_SAMPLES,
    WINDOWS_A_BLOCK,
    SpeakerChange,
    SpeakerChangeConfig,
    _block,
    _window_frames,
)
from annotators.speaker_encoder import HOP_SAMPLES, PARTIAL_FRAMES, PARTIAL_HOP_FRAMES
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio
from manifests.spans import Span

HOP_WINDOW_SAMPLES = PARTIAL_HOP_FRAMES * HOP_SAMPLES


@pytest.fixture(scope="module")
def part() -> SpeakerChange:
    made = SpeakerChangeConfig().build()
    made.setup()
    return made


def change(part: SpeakerChange, audio: Audio) -> Span | None:
    """The span that the part finds, if any; never more than one."""
    found = part.segment(ChannelAudio(b"", 0, audio))
    assert len(found) <= 1
    return found[0].span if found else None


@pytest.fixture(scope="module")
def one_voice(conversation: Audio) -> Audio:
    """Six seconds of one of the two speakers, by the conversation's label file."""
    return conversation[349_000:445_000]


@pytest.fixture(scope="module")
def other_voice(conversation: Audio) -> Audio:
    """Nearly four seconds of the other."""
    return conversation[170_000:230_000]


def test_the_shipped_conversation_passes_and_its_single_voices_do_not(
    part: SpeakerChange, conversation: Audio, one_voice: Audio, other_voice: Audio
) -> None:
    assert change(part, conversation) is not None
    assert change(part, one_voice) is None
    assert change(part, other_voice) is None


@pytest.mark.parametrize("pause_s", [0.5, 90.0])
def test_a_second_voice_is_heard_and_both_are_in_the_span(
    part: SpeakerChange, one_voice: Audio, other_voice: Audio, pause_s: float
) -> None:
    """After a minute and a half of silence, too: the windows of earlier blocks are still known."""
    pause = np.zeros(round(pause_s * MODEL_RATE_HZ), np.float32)
    assert change(part, np.concatenate([one_voice, pause])) is None
    found = change(part, np.concatenate([one_voice, pause, other_voice]))
    assert found is not None
    assert found.start_sample < len(one_voice)
    assert found.end_sample > len(one_voice) + len(pause)


def test_noise_far_below_the_voice_is_no_voice(part: SpeakerChange, one_voice: Audio) -> None:
    noise = np.random.default_rng(0).normal(size=5 * MODEL_RATE_HZ).astype(np.float32) * 1e-5
    assert change(part, np.concatenate([one_voice, noise])) is None


@pytest.mark.parametrize("num_samples", [0, 1, WINDOW_SAMPLES - 1, WINDOW_SAMPLES])
def test_less_than_two_windows_hold_one_voice(part: SpeakerChange, conversation: Audio, num_samples: int) -> None:
    assert change(part, conversation[200_000 : 200_000 + num_samples]) is None


def test_a_lower_threshold_hears_more(one_voice: Audio) -> None:
    assert change(SpeakerChangeConfig(threshold=0.05).build(), one_voice) is not None


@given(st.integers(0, 3 * BLOCK_SAMPLES))
def test_windows_lie_inside_on_one_grid_and_leave_less_than_a_hop_unheard(num_samples: int) -> None:
    audio = np.broadcast_to(np.float32(0), num_samples)  # takes no memory
    starts = []
    for first in range(0, num_samples, BLOCK_SAMPLES):
        num_frames = len(_block(audio, first)) // HOP_SAMPLES + 1  # as the mel front end makes them
        frames = _window_frames(num_frames, first + BLOCK_SAMPLES >= num_samples)
        assert len(frames) <= WINDOWS_A_BLOCK + 1
        starts += [first + frame * HOP_SAMPLES for frame in frames]
    on_grid = [start for start in starts if start % HOP_WINDOW_SAMPLES == 0]
    assert on_grid == list(range(0, len(on_grid) * HOP_WINDOW_SAMPLES, HOP_WINDOW_SAMPLES))
    assert starts == sorted(starts)
    if num_samples >= PARTIAL_FRAMES * HOP_SAMPLES:
        # Mel frames are centred, so the last window may reach one hop of the front end past the end.
        assert -HOP_SAMPLES <= num_samples - (starts[-1] + WINDOW_SAMPLES) < HOP_WINDOW_SAMPLES
