from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.sound_gate import SoundGateConfig, low_energy_ratio
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch

TIME = np.arange(5 * MODEL_RATE_HZ) / MODEL_RATE_HZ


def facts(audio: Audio) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [np.asarray(audio, np.float32)], [16_000])
    return SoundGateConfig().build().annotate(batch).to_pylist()[0]


def chords() -> np.ndarray:
    """A triad a half second, plucked."""
    audio = np.zeros(len(TIME))
    for beat, root in enumerate([220.0, 220.0, 293.66, 329.63, 220.0, 293.66, 329.63, 220.0, 261.63, 220.0]):
        on = (TIME * 2).astype(int) == beat
        since = TIME[on] - beat * 0.5
        for interval in (0, 4, 7):
            for partial in range(1, 6):
                hz = root * 2 ** (interval / 12) * partial
                audio[on] += np.sin(2 * np.pi * hz * since) / partial * np.exp(-2 * since)
    return 0.1 * audio


def test_speech_is_neither_steady_nor_music(conversation: Audio) -> None:
    for start in range(0, 400_000, 80_000):
        found = facts(conversation[start : start + 80_000])
        assert (found["is_steady"], found["is_music"]) == (False, False)


def test_chords_are_music() -> None:
    found = facts(chords())
    assert (found["is_steady"], found["is_music"]) == (False, True)
    assert found["tonal_persistence"] > 0.3


@pytest.mark.parametrize("sound", ["white", "hum", "tone"])
def test_steady_sounds(sound: str) -> None:
    noise = np.random.default_rng(0).normal(size=len(TIME))
    hum = sum(np.sin(2 * np.pi * 50 * k * TIME) / k for k in (1, 2, 3, 5))
    audio = {"white": 0.05 * noise, "hum": 0.05 * hum + 0.002 * noise, "tone": 0.3 * np.sin(2 * np.pi * 440 * TIME)}[sound]
    found = facts(audio)
    assert (found["is_steady"], found["is_music"]) == (True, False)


def test_level_and_dc_do_not_matter(conversation: Audio) -> None:
    loud, quiet = (facts(conversation[:160_000] * np.float32(gain) + np.float32(dc)) for gain, dc in ((1.0, 0.0), (0.1, 0.4)))
    for name in ("envelope_depth", "low_energy_ratio", "spectral_flux", "tonal_persistence"):
        assert quiet[name] == pytest.approx(loud[name], rel=0.02, abs=0.005), name


def test_abstains_on_short_clips_and_silence(conversation: Audio) -> None:
    assert facts(conversation[:8000])["status"] == "abstained"
    assert facts(np.zeros(32_000))["status"] == "abstained"


@pytest.mark.parametrize("num_frames", [3, 60, 99, 100, 400])
def test_low_frames_are_counted_in_clips_of_any_length(num_frames: int) -> None:
    loud_every_third = np.where(np.arange(num_frames) % 3 == 0, 1.0, 0.01)[:, None]
    assert low_energy_ratio(loud_every_third) == np.mean(np.arange(num_frames) % 3 != 0)
    assert low_energy_ratio(np.ones((num_frames, 1))) == 0.0
